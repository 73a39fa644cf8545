"""Compile every kernel for every target without a GPU; list registers and spills.

Numba makes PTX (with NVVM and NVRTC of the wheels ``nvidia-nvvm`` and ``nvidia-cuda-nvrtc``), and
nvJitLink, which also links kernels at run time, makes machine code of it and tells what that needs.
No driver takes part.  Every signature that ``registry`` lists is compiled, the table shows the
largest figure.

Exit status 3: a library that this needs is not installed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from report import RESULTS, machine, versions

TARGETS = ("sm_75", "sm_80", "sm_90", "sm_100")
PACKAGES = (
    "zarr-gpu",
    "numba",
    "numba-cuda",
    "nvidia-nvvm",
    "nvidia-cuda-nvrtc",
    "nvidia-nvjitlink",
    "cuda-core",
)
FIGURES = {
    "registers": r"Used (\d+) registers",
    "stack_bytes": r"(\d+) bytes stack frame",
    "spill_stores": r"(\d+) bytes spill stores",
    "spill_loads": r"(\d+) bytes spill loads",
}


def pretend_device() -> None:
    """Give Numba a current device, which it asks for where a kernel calls a device function."""
    from numba.cuda import dispatcher

    class Device:
        compute_capability = (9, 0)

    dispatcher.get_current_device = Device


def compile_for(entry: Any, signature: Any, target: str) -> dict[str, int]:
    """Figures of one signature on one target."""
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import cuda

    number = int(target.removeprefix("sm_"))
    begin = time.perf_counter()
    ptx, _ = cuda.compile(
        entry, signature, cc=divmod(number, 10), device=False, abi="numba", output="ptx"
    )
    middle = time.perf_counter()
    options = LinkerOptions(arch=target, ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    code = linker.link("cubin").code
    end = time.perf_counter()
    told = linker.get_info_log()
    figures = {}
    for name, pattern in FIGURES.items():
        match = re.search(pattern, told)
        if match is None:
            raise SystemExit(f"nvJitLink does not tell {name}:\n{told}")
        figures[name] = int(match[1])
    return figures | {
        "ptx_bytes": len(ptx),
        "code_bytes": len(code),
        "compile_ms": round(1e3 * (middle - begin)),
        "link_ms": round(1e3 * (end - middle)),
    }


def measure(names: list[str]) -> list[dict[str, Any]]:
    """One row per kernel and target: the largest of each figure over the signatures."""
    from zarr_gpu.kernels import registry

    rows = []
    for name in names:
        kernel = registry.get(name)
        entry = kernel.entry()
        for target in TARGETS:
            found = [compile_for(entry, signature, target) for signature in kernel.signatures]
            row: dict[str, Any] = {"kernel": name, "target": target, "signatures": len(found)}
            row |= {key: max(figures[key] for figures in found) for key in found[0]}
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a table: one kernel each."""
    lines = [
        "| kernel | signatures | " + " | ".join(f"registers {t}" for t in TARGETS) + " | spills |",
        "| --- | --- |" + " --- |" * (len(TARGETS) + 1),
    ]
    for name in dict.fromkeys(row["kernel"] for row in rows):
        of_kernel = {row["target"]: row for row in rows if row["kernel"] == name}
        registers = [str(of_kernel[t]["registers"]) for t in TARGETS]
        spills = sum(r["spill_stores"] + r["spill_loads"] for r in of_kernel.values())
        signatures = of_kernel[TARGETS[0]]["signatures"]
        lines.append(f"| {name} | {signatures} | {' | '.join(registers)} | {spills} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="kernels (all)")
    parser.add_argument("--json", type=Path, help="write here, not to the results")
    arguments = parser.parse_args()
    try:
        from zarr_gpu.kernels import registry

        pretend_device()
        # Whether the libraries are there and work is seen only by using them.
        probe = registry.get("crc_join")
        compile_for(probe.entry(), probe.signatures[0], TARGETS[0])
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        message = f"cannot compile for CUDA here: {type(error).__name__}: {error}"
        print(" ".join(message.split())[:300], file=sys.stderr)
        return 3
    rows = measure(arguments.only or list(registry.names()))
    facts = {
        "command": "python benchmarks/gpu/compile_kernels.py",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "kernels": rows,
    }
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
        return 0
    lines = table(rows)
    print("\n".join(lines))
    signatures = sum(row["signatures"] for row in rows)
    text = [
        "# kernels",
        "",
        "Registers per thread and bytes of spilled registers (stores and loads, all targets) of",
        "the kernels, compiled without a GPU by Numba and nvJitLink: the largest of each kernel's",
        f"signatures, {signatures} compilations. Nothing here was run on a GPU.",
        "",
        *lines,
        "",
        f"- Command: `{facts['command']}`",
        "- Versions: " + ", ".join(f"{k} {v}" for k, v in facts["versions"].items()),
    ]
    (RESULTS / "kernels.md").write_text("\n".join(text) + "\n")
    (RESULTS / "kernels.json").write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
