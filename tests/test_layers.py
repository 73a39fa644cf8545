"""Imports go down only.

Every file of ``zarr_gpu/`` has a level; it may import from its own level and from those below, but
one codec never imports another, one store never another, one device never another.  Libraries that
are slow to import are imported inside functions, GPU libraries only by the files that own them.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "zarr_gpu"

# The first pattern that matches a module's name (without "zarr_gpu.") gives its level.
LEVELS = [
    (0, r"errors|config|stages"),
    (1, r"boxes|extents|grid|plan|placing|select|dtypes|fill_values|chunking|metadata(\..+)?"),
    (2, r"storage\.(wrapper|cache_space|zip_(directory|journal|reading))"),
    (2, r"codecs\.(base|checks|checksum|framing|registry|runtime|native|nvcomp(_[a-z]+)?)"),
    (2, r"storage\.(base|atomic|attempts|cloud_options|failures|keys|obstore_library|pool|spans)"),
    (2, r"storage\.reference_[a-z]+"),
    (2, r"storage\.(batches|lazy|lmdb_environment|n5_blocks|ordered|sql_dialects|sql_engine|urls)"),
    (4, r"codecs\.(chain|device_[a-z_]+)|codec_arguments|layout|shards"),
    (4, r"storage(\.(kvikio|opening|reference))?"),
    (3, r"codecs(\.[^.]+)?|storage(\.[^.]+)?"),
    (5, r"locate|write_locks|devices\.(base|cache|lanes|rules|staged_files|staging|tables|verify)"),
    (
        5,
        r"devices\.([a-z]+_runtime|chunk_cache|compiled|compiling|cpu_lane|helpers|host_rows|host_write|part_rows|scratch)",
    ),
    (6, r"devices(\.[^.]+)?"),
    (7, r"box_engine|engine|jobs|shard_writes"),
    (8, r"array|array_info|attributes|building|consolidation|creation|explain|group|group_view"),
    (8, r"hierarchy|indexers|node_changes|nodes|older_arguments|selecting|trees"),
    (9, r"api(_[a-z]+)?|"),  # "" is zarr_gpu/__init__.py
    (10, r"cli|demo(_[a-z]+)?|__main__"),  # a user's world: sees the public API only
]

SIBLINGS = {3: ("codecs.", "storage."), 6: ("devices.",)}
"""Levels whose files do not know each other, by folder."""

GPU = {"cupy", "cupyx", "kvikio", "numba", "nvidia", "cuda", "pynvml", "rmm"}
GPU_OWNERS = r"devices\.(cuda|sim)(_[a-z]+)?|codecs\.nvcomp|storage\.(gds|kvikio)"

HEAVY = {
    "PIL",
    "asyncio",
    "concurrent",
    "fsspec",
    "google_crc32c",
    "ml_dtypes",
    "multiprocessing",
    "numcodecs",
    "rich",
    "typer",
    "urllib",
}
"""What ``import zarr_gpu`` must not pay for: imported inside the functions that need them."""

ORACLES = {"zarr", "zarrs", "tensorstore"}

KERNEL_IMPORTS = {"__future__", "collections", "llvmlite", "math", "numba", "numpy", "typing"}

LAZY = r"codecs\.registry|devices|storage|storage\.opening|"
"""Files that may import modules of ours inside functions, or by name."""


@dataclass(frozen=True)
class Import:
    module: str  # dotted, absolute
    line: int
    inside: bool  # a function
    typing: bool  # under ``if TYPE_CHECKING``, so never executed


def level(module: str) -> int | None:
    """Level of a module; ``module`` has no leading ``zarr_gpu.``."""
    return next((n for n, pattern in LEVELS if re.fullmatch(pattern, module)), None)


def local_modules(package: Path) -> dict[str, Path]:
    """Name without ``zarr_gpu.`` -> file; packages go by their folder's name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__")] = path
    return found


def imports(source: str, module: str, is_package: bool, known: set[str]) -> list[Import]:
    """Every import of a file, as absolute names; ``from a import b`` is ``a.b`` if that is one."""
    found: list[Import] = []

    def visit(node: ast.AST, inside: bool, typing: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, inside, typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ["zarr_gpu", *module.split(".")] if module else ["zarr_gpu"]
                keep = len(package) - node.level + (1 if is_package else 0)
                base = ".".join([*package[:keep], *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                is_module = full.removeprefix("zarr_gpu.") in known and full.startswith("zarr_gpu.")
                name = full if is_module else base
                found.append(Import(name, node.lineno, inside, typing))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            found.append(Import("zarr_gpu.<by name>", node.lineno, inside=True, typing=False))
        deeper = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = typing or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.iter_child_nodes(node):
            visit(child, deeper, typing)

    visit(ast.parse(source), inside=False, typing=False)
    return found


def complaints(module: str, source: str, known: set[str], *, is_package: bool) -> list[str]:
    """What is wrong with the imports of one file."""
    own = level(module)
    name = f"zarr_gpu.{module}".rstrip(".")
    if own is None:
        return [f"{name} has no level: add it to LEVELS"]
    bad = []
    for item in imports(source, module, is_package, known):
        where = f"{name}:{item.line}"
        top = item.module.partition(".")[0]
        if top in ORACLES:
            bad.append(f"{where} imports {top}, an oracle for tests")
        elif top == "kernels":
            bad.append(f"{where} imports kernels: write zarr_gpu.kernels")
        elif top in GPU and not re.fullmatch(GPU_OWNERS, module):
            bad.append(f"{where} imports {top}, which only {GPU_OWNERS} may")
        elif top in HEAVY and not (item.inside or item.typing):
            bad.append(f"{where} imports {top} at the top: do it in the function that needs it")
        elif top == "zarr_gpu":
            bad += complain_of_ours(module, own, item, where, known)
    return bad


def complain_of_ours(module: str, own: int, item: Import, where: str, known: set[str]) -> list[str]:
    target = item.module.removeprefix("zarr_gpu").removeprefix(".")
    if target.startswith("kernels"):
        if module.startswith(("devices.", "codecs.")):
            return []
        return [f"{where} imports {item.module}: only devices and codecs run kernels"]
    lazy = re.fullmatch(LAZY, module) is not None
    if item.inside and not lazy:
        return [f"{where} hides an import of {item.module} in a function"]
    if target == "<by name>":
        return []
    if target not in known:
        return [f"{where} imports {item.module}, which does not exist"]
    theirs = level(target)
    if theirs is None:
        return [f"{where} imports {item.module}, which has no level"]
    if theirs > own and not (lazy and item.inside):
        return [f"{where} (level {own}) imports {item.module} (level {theirs})"]
    if own == 10 and theirs not in {0, 9, 10}:
        return [f"{where} imports {item.module}: only the public API is open to it"]
    for folder in SIBLINGS.get(own, ()):
        if module.startswith(folder) and target.startswith(folder) and theirs == own:
            return [f"{where} imports its sibling {item.module}"]
    return []


MODULES = local_modules(PACKAGE)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    path = MODULES[module]
    is_package = path.name == "__init__.py"
    source = path.read_text(encoding="utf-8")
    assert complaints(module, source, set(MODULES), is_package=is_package) == []


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Names along one cycle of the graph, [] where there is none."""
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return trail[trail.index(name) :]
        if name in done:
            return []
        for target in sorted(graph[name]):
            if cycle := walk(target, [*trail, name]):
                return cycle
        done.add(name)
        return []

    return next((cycle for name in sorted(graph) if (cycle := walk(name, []))), [])


def test_no_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        is_package = path.name == "__init__.py"
        found = imports(path.read_text(encoding="utf-8"), module, is_package, set(MODULES))
        executed = {i.module for i in found if not (i.inside or i.typing)}
        names = {name.removeprefix("zarr_gpu").removeprefix(".") for name in executed}
        graph[module] = {n for n in names if n in MODULES} - {module, ""}
    assert find_cycle(graph) == []


def test_cycles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert find_cycle(graph) == ["b", "c"]
    assert find_cycle({**graph, "c": {"d"}}) == []


def test_kernels_import_nothing_of_ours() -> None:
    for path in sorted((ROOT / "kernels").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [] if node.level else [node.module or ""]
            else:
                continue
            tops = {name.partition(".")[0] for name in names}
            assert tops <= KERNEL_IMPORTS, path


def test_the_whole_package_is_seen() -> None:
    assert {"", "errors", "codecs.base"} <= set(MODULES)
    assert level("codecs.chain") == 4
    assert level("codecs.blosc") == 3
    assert level("storage.base") == 2
    assert level("devices.base") == 5
    assert level("") == 9


KNOWN = {
    "",
    "errors",
    "plan",
    "codecs",
    "codecs.base",
    "codecs.gzip",
    "codecs.zstd",
    "codecs.registry",
    "storage.base",
    "storage.local",
    "storage.memory",
    "devices",
    "devices.base",
    "devices.cpu",
    "devices.cuda",
    "engine",
    "api",
    "array",
    "cli",
}


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("plan", "from zarr_gpu.errors import ZarrError", None),
        ("plan", "import numpy as np", None),
        ("plan", "from zarr_gpu.engine import read", "level 1"),
        ("plan", "from zarr_gpu import engine", "level 7"),
        ("plan", "from .engine import read", "level 7"),
        ("plan", "from . import engine", "level 7"),
        ("plan", "import zarr_gpu", "level 9"),
        ("plan", "from zarr_gpu.nothing import x", "does not exist"),
        ("plan", "if TYPE_CHECKING:\n    from zarr_gpu.array import Array", "level 8"),
        ("plan", "def f():\n    from zarr_gpu.errors import ZarrError", "hides"),
        ("plan", "def f():\n    importlib.import_module(name)", "hides"),
        ("codecs.gzip", "from zarr_gpu.codecs.base import Codec", None),
        ("codecs.gzip", "from .base import Codec", None),
        ("codecs.gzip", "from .zstd import Zstd", "sibling"),
        ("codecs.gzip", "from zarr_gpu.codecs import zstd", "sibling"),
        ("codecs.gzip", "import zarr_gpu.codecs.zstd", "sibling"),
        ("codecs.gzip", "import numcodecs", "at the top"),
        ("codecs.gzip", "from numcodecs.gzip import GZip", "at the top"),
        ("codecs.gzip", "def f():\n    import numcodecs", None),
        ("codecs.gzip", "if TYPE_CHECKING:\n    from numcodecs import Blosc", None),
        ("codecs.gzip", "def f():\n    from zarr_gpu.kernels import shuffle", None),
        ("codecs.gzip", "def f():\n    import cupy", "imports cupy"),
        ("codecs.gzip", "from concurrent.futures import Future", "at the top"),
        ("codecs.registry", "def f():\n    importlib.import_module(name)", None),
        ("codecs.registry", "from zarr_gpu.codecs.gzip import Gzip", "level 3"),
        ("storage.local", "from zarr_gpu.storage.memory import MemoryStore", "sibling"),
        ("storage.local", "from zarr_gpu.codecs.base import Codec", None),
        ("devices.cpu", "from zarr_gpu.devices.cuda import CudaDevice", "sibling"),
        ("devices.cuda", "import cupy", None),
        ("devices", "def get_device(kind):\n    from zarr_gpu.devices.cpu import CpuDevice", None),
        ("engine", "from zarr_gpu.kernels import scatter", "only devices and codecs"),
        ("engine", "import kernels", "write zarr_gpu.kernels"),
        ("engine", "import zarr", "oracle"),
        ("cli", "import zarr_gpu", None),
        ("cli", "from zarr_gpu.errors import ZarrError", None),
        ("cli", "from zarr_gpu.engine import read", "public API"),
        ("new", "", "no level"),
    ],
)
def test_the_check_finds(module: str, source: str, complaint: str | None) -> None:
    found = complaints(module, source, KNOWN, is_package=module in {"", "devices", "codecs"})
    if complaint is None:
        assert found == []
    else:
        assert len(found) == 1
        assert complaint in found[0]
