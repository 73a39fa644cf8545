"""The command line: ``zarr-gpu info``, ``tree``, ``copy`` and ``demo``.

Needs the extra ``cli`` (typer, rich, Pillow), imported in the functions that need them, so that
their absence becomes a message rather than a traceback.  Errors of ``zarr_gpu`` are one line on
standard error and exit code 1; wrong usage is exit code 2.  A user of the public API like any
other: imports nothing else of ours.

Text from files (names, attributes, data types) is printed with control characters escaped.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr_gpu
from zarr_gpu import demo as demos
from zarr_gpu.errors import (
    ContainsNodeError,
    MissingDependencyError,
    NodeNotFoundError,
    ZarrError,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.tree import Tree
    from typer import Typer

__all__ = ["main"]

MISSING = "the command line needs typer, rich and Pillow: pip install 'zarr-gpu[cli]'"
MEMBERS_SHOWN = 50

Node = zarr_gpu.Array | zarr_gpu.Group


class Size(StrEnum):
    """How large a volume the demo makes."""

    small = "small"
    medium = "medium"
    large = "large"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments
        Words after the command's name, ``sys.argv[1:]`` where None.
    """
    try:
        app = make_app()
        app(args=list(sys.argv[1:] if arguments is None else arguments), prog_name="zarr-gpu")
    except (ZarrError, OSError) as error:
        print(f"zarr-gpu: error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 1
    except SystemExit as stop:  # how the app always ends
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def make_app() -> Typer:
    """The commands.

    Raises
    ------
    MissingDependencyError
        The extra ``cli`` is not installed.
    """
    try:
        import rich
        import typer
    except ImportError as error:
        raise MissingDependencyError(MISSING) from error

    app = typer.Typer(
        name="zarr-gpu",
        help="Look at Zarr arrays and groups, copy them, and see how quickly they are read here.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    device_option = typer.Option("auto", help="Where to decode: auto, cpu, ...")
    json_option = typer.Option(False, "--json", help="Print JSON instead of tables.")

    def show_version(wanted: bool) -> None:
        if wanted:
            print(f"zarr-gpu {zarr_gpu.__version__}")
            raise typer.Exit

    @app.callback()
    def root(
        version: bool = typer.Option(
            False, "--version", callback=show_version, is_eager=True, help="Print the version."
        ),
    ) -> None:
        pass

    @app.command()
    def info(
        path: str = typer.Argument(help="Array or group: a folder or URL."),
        as_json: bool = json_option,
        device: str = device_option,
    ) -> None:
        """Show shape, chunks, codecs, sizes and decode path of an array, or sum up a group."""
        described = describe(zarr_gpu.open(path, mode="r", device=device), path)
        if as_json:
            print_json(described)
        else:
            console().print(properties(described))

    @app.command()
    def tree(
        path: str = typer.Argument(help="Group or array: a folder or URL."),
        level: int | None = typer.Option(
            None, "--level", min=0, help="How deep to go; default: all."
        ),
    ) -> None:
        """Draw the hierarchy below a group."""
        console().print(draw_tree(zarr_gpu.open(path, mode="r"), path, level))

    @app.command()
    def copy(
        source: str = typer.Argument(metavar="SRC", help="A folder, a zip file or a URL."),
        target: str = typer.Argument(metavar="DST", help="The same; made if need be."),
        force: bool = typer.Option(False, "--force", help="Replace keys that are there."),
        skip: bool = typer.Option(False, "--skip", help="Keep keys that are there: go on."),
        dry_run: bool = typer.Option(False, "--dry-run", help="Write nothing, only count."),
    ) -> None:
        """Copy all keys from one store to another as they are stored, of whatever kinds."""
        if force and skip:
            raise typer.BadParameter("--force and --skip exclude each other")
        if_exists = "replace" if force else "skip" if skip else "raise"
        print(copy_stores(source, target, if_exists=if_exists, dry_run=dry_run))

    @app.command()
    def demo(
        path: str | None = typer.Argument(
            None, help="Array or group to read; default: a made volume."
        ),
        size: Size = typer.Option(Size.medium, help="Of the made volume."),
        device: str = device_option,
        output: Path = typer.Option("demo.png", help="PNG of a slice and a projection."),
        as_json: bool = json_option,
    ) -> None:
        """Write a microscope-like volume, read it whole and in patches, compare and measure.

        With PATH only the reading part, on the data there: the array, or the largest of the group.
        """
        if not output.absolute().parent.is_dir():
            raise typer.BadParameter(f"no folder {str(output.parent)!r}", param_hint="--output")
        from rich.progress import Progress

        target = output.absolute()
        screen = console(stderr=True)
        quiet = as_json or not screen.is_terminal
        with Progress(console=screen, transient=True, disable=quiet) as bar:
            task = bar.add_task("starting", total=1.0)

            def progress(text: str, done: float) -> None:
                bar.update(task, description=text, completed=done)

            if path is None:
                report = demos.run_on_generated(
                    size.value, device=device, picture=target, progress=progress
                )
            else:
                report = demos.run_on_store(path, device=device, picture=target, progress=progress)
        if as_json:
            print_json(report.to_dict())
        else:
            show_report(report, console())
        if not report.equal:
            print("zarr-gpu: error: the values read differ", file=sys.stderr)
            raise typer.Exit(1)

    del rich  # imported to know that it is there
    return app


def copy_stores(source: str, target: str, *, if_exists: str, dry_run: bool) -> str:
    """Copy with a progress bar, and say what was copied."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    screen = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), Remaining())
    of, of_path = zarr_gpu.storage.open_store(source, mode="r")
    with of:
        if next(of.list_prefix(of_path), None) is None:
            raise NodeNotFoundError(f"there is nothing to copy at {source!r}")
        to, to_path = zarr_gpu.storage.open_store(target, mode="a")
        with to, Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
            task = bar.add_task("copying", total=None)

            def progress(done: int, total: int, nbytes: int) -> None:
                text = f"{done:,} of {total:,} keys, {human(nbytes)}"
                bar.update(task, description=text, completed=done, total=total)

            try:
                copied, skipped, nbytes = zarr_gpu.copy_store(
                    of,
                    to,
                    of_path,
                    to_path,
                    if_exists=if_exists,
                    dry_run=dry_run,
                    progress=progress,
                )
            except ContainsNodeError as cause:
                raise ContainsNodeError(
                    f"{cause.key!r} exists in {target!r}: --force replaces what is there, "
                    "--skip keeps it",
                    key=cause.key,
                ) from cause
    kept = f", {skipped:,} kept" if skipped else ""
    return f"{'would copy' if dry_run else 'copied'} {copied:,} keys, {human(nbytes)}{kept}"


def console(*, stderr: bool = False) -> Console:
    """A console; NO_COLOR is respected, and a pipe gets wide lines."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not made.is_terminal:
        made.width = max(made.width, 120)
    return made


def print_json(value: dict[str, Any]) -> None:
    """Print JSON that every parser takes: no NaN, one document."""
    print(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """``value`` with NumPy scalars, bytes and non-finite numbers made fit for JSON."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "item") and callable(value.item):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def printable(text: str) -> str:
    """``text`` with whatever could steer a terminal escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def human(nbytes: int) -> str:
    """1536 -> "1.5 KiB"."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def extent(shape: Iterable[int]) -> str:
    """(4, 5) -> "4 x 5"; a scalar's shape is "()"."""
    return " x ".join(str(n) for n in shape) or "()"


def describe(node: Node, path: str) -> dict[str, Any]:
    """What ``info`` says of a node."""
    if isinstance(node, zarr_gpu.Array):
        return describe_array(node, path)
    return describe_group(node, path)


def describe_array(array: zarr_gpu.Array, path: str) -> dict[str, Any]:
    metadata = array.metadata
    stored, initialized = array.nbytes_stored(), array.nchunks_initialized
    names = metadata.dimension_names
    device, steps = demos.decode_path(array)
    return {
        "kind": "array",
        "path": path,
        "zarr_format": metadata.zarr_format,
        "shape": array.shape,
        "dimension_names": None if names is None else list(names),
        "dtype": str(array.dtype),
        "fill_value": array.fill_value,
        "order": array.order,
        "chunks": array.chunks,
        "shards": array.shards,
        "codecs": [
            {"name": codec.name, "configuration": codec.configuration} for codec in metadata.codecs
        ],
        "nbytes": array.nbytes,
        "nbytes_stored": stored,
        "ratio": array.nbytes / stored if initialized and stored else None,
        "nchunks": array.nchunks,
        "nchunks_initialized": initialized,
        "device": device,
        "decode_path": [
            {"codec": step.codec, "where": step.where, "note": step.note} for step in steps
        ],
        "attributes": dict(array.attrs),
    }


def describe_group(group: zarr_gpu.Group, path: str) -> dict[str, Any]:
    members = dict(group.members(max_depth=None))
    arrays = {name: m for name, m in members.items() if isinstance(m, zarr_gpu.Array)}
    return {
        "kind": "group",
        "path": path,
        "zarr_format": group.metadata.zarr_format,
        "consolidated": group.metadata.consolidated is not None,
        "groups": len(members) - len(arrays),
        "arrays": [
            {
                "path": name,
                "shape": array.shape,
                "dtype": str(array.dtype),
                "nbytes": array.nbytes,
            }
            for name, array in sorted(arrays.items())
        ],
        "nbytes": sum(array.nbytes for array in arrays.values()),
        "attributes": dict(group.attrs),
    }


def codec_text(codec: dict[str, Any] | str) -> str:
    """One codec in a line: ``blosc(cname=lz4, clevel=5)``."""
    if isinstance(codec, str):  # a short-hand name
        return codec
    shown = []
    for key, value in (codec.get("configuration") or {}).items():
        if key in {"codecs", "index_codecs"} and isinstance(value, list):
            shown.append(f"{key}=[{', '.join(codec_text(inner) for inner in value)}]")
        elif key == "chunk_shape" and isinstance(value, list):
            shown.append(f"chunks={extent(value)}")
        else:
            shown.append(f"{key}={value}")
    return f"{codec['name']}({', '.join(shown)})" if shown else str(codec["name"])


def step_text(step: dict[str, str]) -> str:
    note = f" ({step['note']})" if step["note"] else ""
    return f"{step['codec']}: {step['where']}{note}"


def properties(described: dict[str, Any]) -> RenderableType:
    """A described node as a table of two columns."""
    rows: dict[str, str] = {
        "path": described["path"],
        "kind": f"{described['kind']}, Zarr v{described['zarr_format']}",
    }
    if described["kind"] == "array":
        names = described["dimension_names"]
        total, there = described["nchunks"], described["nchunks_initialized"]
        ratio = described["ratio"]
        rows |= {
            "shape": extent(described["shape"])
            + (f" ({', '.join(str(n) for n in names)})" if names else ""),
            "dtype": described["dtype"],
            "fill value": str(plain(described["fill_value"])),
            "chunks": extent(described["chunks"]),
            "shards": "none" if described["shards"] is None else extent(described["shards"]),
            "order": described["order"],
            "codecs": "\n".join(codec_text(codec) for codec in described["codecs"]),
            "decoded": human(described["nbytes"]),
            "stored": human(described["nbytes_stored"]) + (f", ratio {ratio:.2f}" if ratio else ""),
            "chunks stored": f"{there} of {total}" + (f" ({there / total:.0%})" if total else ""),
            "decode path": "\n".join(step_text(step) for step in described["decode_path"]),
        }
    else:
        arrays = described["arrays"]
        lines = [f"{a['path']}: {extent(a['shape'])} {a['dtype']}" for a in arrays[:MEMBERS_SHOWN]]
        if len(arrays) > MEMBERS_SHOWN:
            lines.append(f"... and {len(arrays) - MEMBERS_SHOWN} more")
        rows |= {
            "consolidated": "yes" if described["consolidated"] else "no",
            "groups": str(described["groups"]),
            "arrays": "\n".join([str(len(arrays)), *lines]),
            "decoded": human(described["nbytes"]),
        }
    if described["attributes"]:
        text = json.dumps(plain(described["attributes"]), ensure_ascii=False)
        rows["attributes"] = text if len(text) <= 400 else f"{text[:400]} ..."
    return two_columns(rows)


def two_columns(rows: dict[str, str]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(printable_lines(value), overflow="fold"))
    return table


def draw_tree(node: Node, path: str, level: int | None) -> Tree:
    """The hierarchy as lines; ``level`` 0 is the node alone."""
    from rich.text import Text
    from rich.tree import Tree

    def label(name: str, shown: Node) -> Text:
        text = Text(printable(name), style="bold")
        if isinstance(shown, zarr_gpu.Array):
            text.append(f" {extent(shown.shape)} {printable(str(shown.dtype))}", style="not bold")
        return text

    def add(branch: Tree, group: Node, depth: int) -> None:
        if not isinstance(group, zarr_gpu.Group) or (level is not None and depth >= level):
            return
        for name, child in sorted(group.members(), key=lambda member: member[0]):
            add(branch.add(label(name, child)), child, depth + 1)

    drawn = Tree(label(path, node))
    add(drawn, node, 0)
    return drawn


def show_report(report: demos.Report, out: Console) -> None:
    """The demo's figures: one column for each array."""
    from rich.table import Table
    from rich.text import Text

    first = report.arrays[0]
    table = Table(
        title=f"{report.source}: {extent(first.shape)} {first.dtype}, {human(first.nbytes)}, "
        f"device {report.device}"
    )
    table.add_column("")
    for measured in report.arrays:
        table.add_column(Text(printable(measured.name)), overflow="fold")

    def row(name: str, values: Iterable[str]) -> None:
        table.add_row(Text(name), *(Text(printable_lines(value)) for value in values))

    figures = [measured.to_dict() for measured in report.arrays]
    row("chunks", (extent(m.chunks) for m in report.arrays))
    row("shards", ("none" if m.shards is None else extent(m.shards) for m in report.arrays))
    row("stored", (human(m.nbytes_stored) for m in report.arrays))
    row("compression ratio", ("-" if f["ratio"] is None else f"{f['ratio']:.2f}" for f in figures))
    if first.write_seconds is not None:
        row("write, decoded", (f"{f['write_gb_per_s']:.2f} GB/s" for f in figures))
    if first.read_shape == first.shape:
        row("read whole, decoded", (f"{f['read_gb_per_s']:.2f} GB/s" for f in figures))
    else:
        row(
            f"read {extent(first.read_shape)}, decoded",
            (f"{f['read_gb_per_s']:.2f} GB/s" for f in figures),
        )
    row(
        f"random patches of {extent(first.patch_shape)}",
        (f"{f['patches_per_s']:.0f} per second" for f in figures),
    )
    row(
        "patch latency, p50 / p99",
        (f"{f['patch_p50_ms']:.1f} / {f['patch_p99_ms']:.1f} ms" for f in figures),
    )
    row("decode path", ("\n".join(step_text(step) for step in f["steps"]) for f in figures))
    row(
        f"equal to {report.compared_with}",
        ("yes" if m.equal else "NO" for m in report.arrays),
    )
    out.print(table)
    if report.picture is not None:
        out.print(f"picture: {report.picture}", soft_wrap=True)


def printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


if __name__ == "__main__":
    sys.exit(main())
