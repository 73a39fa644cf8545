"""The command line, called as a function; what needs a process of its own runs in one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import zarr_gpu

pytest.importorskip("typer")
pytest.importorskip("rich")

from zarr_gpu import cli, demo

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def array(tmp_path: Path) -> Path:
    """A sharded array; two of its three shards are stored."""
    path = tmp_path / "a.zarr"
    made = zarr_gpu.create_array(
        str(path),
        shape=(24, 8),
        chunks=(4, 4),
        shards=(8, 8),
        dtype="uint16",
        compressors={"name": "zstd", "configuration": {"level": 1, "checksum": False}},
        dimension_names=("y", "x"),
        attributes={"unit": "µm", "nested": {"a": [1, 2]}},
    )
    made[:8, :4] = 1
    made[8:12, :4] = 2
    return path


@pytest.fixture
def group(tmp_path: Path) -> Path:
    path = tmp_path / "g.zarr"
    root = zarr_gpu.open_group(str(path), mode="w", attributes={"a": 1})
    root.create_array("b", shape=(3, 4), chunks=(3, 4), dtype="i4")
    root.create_array("sub/deep/c", shape=(2,), chunks=(2,), dtype="f8")
    return path


def test_info_of_an_array(array: Path, capsys: Captured) -> None:
    assert cli.main(["info", str(array)]) == 0
    out = capsys.readouterr().out
    for text in (
        "24 x 8 (y, x)",
        "uint16",
        "4 x 4",
        "8 x 8",
        "sharding_indexed",
        "8 of 12 (67%)",
        "µm",
    ):
        assert text in out
    assert "\x1b" not in out  # no terminal, no colours


def test_info_as_json(array: Path, capsys: Captured) -> None:
    assert cli.main(["info", str(array), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "array"
    assert found["zarr_format"] == 3
    assert found["shape"] == [24, 8]
    assert found["chunks"] == [4, 4]
    assert found["shards"] == [8, 8]
    assert found["dtype"] == "uint16"
    assert found["dimension_names"] == ["y", "x"]
    assert found["codecs"][0]["name"] == "sharding_indexed"
    assert found["nbytes"] == 384
    assert found["nbytes_stored"] == sum(p.stat().st_size for p in array.rglob("*") if p.is_file())
    assert found["ratio"] == pytest.approx(384 / found["nbytes_stored"])
    assert found["nchunks"] == 12
    assert found["nchunks_initialized"] == 8
    assert {step["where"] for step in found["decode_path"]} == {"cpu"}
    assert found["attributes"] == {"unit": "µm", "nested": {"a": [1, 2]}}


def test_info_of_v2(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "v2.zarr"
    zarr_gpu.create_array(
        str(path), shape=(4,), chunks=(3,), dtype=">f4", fill_value=np.nan, zarr_format=2
    )
    assert cli.main(["info", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["zarr_format"] == 2
    assert found["fill_value"] == "NaN"
    assert found["shards"] is None
    assert (found["nchunks_initialized"], found["ratio"]) == (0, None)
    assert cli.main(["info", str(path)]) == 0
    assert "Zarr v2" in capsys.readouterr().out


def test_info_of_a_group(group: Path, capsys: Captured) -> None:
    assert cli.main(["info", str(group), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "group"
    assert found["groups"] == 2
    assert [a["path"] for a in found["arrays"]] == ["b", "sub/deep/c"]
    assert found["nbytes"] == 48 + 16
    assert found["attributes"] == {"a": 1}
    assert cli.main(["info", str(group)]) == 0
    assert "sub/deep/c: 2 float64" in capsys.readouterr().out


def test_tree(group: Path, capsys: Captured) -> None:
    assert cli.main(["tree", str(group)]) == 0
    out = capsys.readouterr().out
    assert "b 3 x 4 int32" in out
    assert "c 2 float64" in out
    assert out.index("sub") < out.index("deep") < out.index("c 2")
    assert cli.main(["tree", str(group), "--level", "1"]) == 0
    out = capsys.readouterr().out
    assert "sub" in out
    assert "deep" not in out
    assert cli.main(["tree", str(group), "--level", "0"]) == 0
    assert "b 3 x 4" not in capsys.readouterr().out


def test_tree_of_an_array(array: Path, capsys: Captured) -> None:
    assert cli.main(["tree", str(array)]) == 0
    assert "24 x 8 uint16" in capsys.readouterr().out


def test_demo(tmp_path: Path, capsys: Captured) -> None:
    picture = tmp_path / "p.png"
    assert cli.main(["demo", "--size", "small", "--output", str(picture)]) == 0
    out = capsys.readouterr().out
    for text in ("64 x 256 x 256 uint16", "blosc-lz4", "zstd", "GB/s", "p50 / p99", "blosc: cpu"):
        assert text in out
    assert out.count("yes") == 2
    assert str(picture) in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_demo_on_a_path(array: Path, tmp_path: Path, capsys: Captured) -> None:
    picture = tmp_path / "p.png"
    assert cli.main(["demo", str(array), "--output", str(picture), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert captured.err == ""
    assert found["equal"] is True
    assert found["picture"] == str(picture)
    assert found["arrays"][0]["shape"] == [24, 8]
    assert found["arrays"][0]["write_gb_per_s"] is None
    assert cli.main(["demo", str(array), "--output", str(picture)]) == 0
    assert "read whole" in capsys.readouterr().out


def test_demo_fails_where_values_differ(
    array: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "same", lambda a, b: False)
    assert cli.main(["demo", str(array), "--output", str(tmp_path / "p.png")]) == 1
    captured = capsys.readouterr()
    assert "values read differ" in captured.err
    assert "NO" in captured.out


def test_version(capsys: Captured) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"zarr-gpu {zarr_gpu.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["info"], ["nothing"], ["demo", "--size", "vast"], ["tree", "x", "--level", "-1"]]
)
def test_wrong_usage(arguments: list[str], capsys: Captured) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err != ""


def test_output_into_no_folder(tmp_path: Path, capsys: Captured) -> None:
    target = tmp_path / "nowhere" / "p.png"
    assert cli.main(["demo", "--size", "small", "--output", str(target)]) == 2
    assert "nowhere" in re.sub(r"[\s│]", "", capsys.readouterr().err)


@pytest.mark.parametrize("command", ["info", "tree", "demo"])
def test_errors_are_one_line(command: str, tmp_path: Path, capsys: Captured) -> None:
    assert cli.main([command, str(tmp_path / "nothing.zarr")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("zarr-gpu: error: ")
    assert captured.err.count("\n") == 1
    assert "nothing.zarr" in captured.err


def test_unknown_device(array: Path, capsys: Captured) -> None:
    assert cli.main(["info", str(array), "--device", "abacus"]) == 1
    assert "abacus" in capsys.readouterr().err


def test_damage_names_the_key(array: Path, tmp_path: Path, capsys: Captured) -> None:
    stored = array / "c" / "0" / "0"
    stored.write_bytes(stored.read_bytes()[:-5])
    assert cli.main(["demo", str(array), "--output", str(tmp_path / "p.png")]) == 1
    err = capsys.readouterr().err
    assert "c/0/0" in err
    assert err.count("\n") == 1


def test_terminals_are_not_steered_by_files(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "g.zarr"
    group = zarr_gpu.open_group(str(path), mode="w", attributes={"note": "\x1b[31mred \x07 [bold]"})
    group.create_array("x\x1b[2J[red]y", shape=(1,), chunks=(1,), dtype="i4")
    for command in ("info", "tree"):
        assert cli.main([command, str(path)]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "\x07" not in out
        assert "x\\x1b[2J[red]y" in out


def test_no_color(array: Path) -> None:
    def run(**env: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "zarr_gpu.cli", "info", str(array)],
            env={k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}} | env,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
        ).stdout

    coloured = re.compile(r"\x1b\[[0-9;]*3[0-9]")
    assert coloured.search(run(FORCE_COLOR="1", NO_COLOR="1")) is None
    assert "\x1b" not in run()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(1.5), 1.5),
        (float("nan"), "NaN"),
        (np.float64("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (np.datetime64("2020-01-01"), "2020-01-01"),
        (b"ab", "b'ab'"),
        ({"a": (np.int8(1), None, True)}, {"a": [1, None, True]}),
        (1 + 2j, "(1+2j)"),
    ],
)
def test_plain(value: object, expected: object) -> None:
    assert cli.plain(value) == expected
    json.dumps(cli.plain(value), allow_nan=False)


def test_human() -> None:
    assert cli.human(0) == "0 B"
    assert cli.human(1536) == "1.5 KiB"
    assert cli.human(1 << 28) == "256.0 MiB"
    assert cli.human(1 << 60) == "1024.0 PiB"


def test_codec_text() -> None:
    inner = {"name": "zstd", "configuration": {"level": 3}}
    codec = {
        "name": "sharding_indexed",
        "configuration": {"chunk_shape": [2, 4], "codecs": ["bytes", inner]},
    }
    assert cli.codec_text(codec) == "sharding_indexed(chunks=2 x 4, codecs=[bytes, zstd(level=3)])"


def copied(group: Path | str, target: str, capsys: Captured, *options: str) -> tuple[int, str, str]:
    code = cli.main(["copy", str(group), target, *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_copying_through_many_stores(group: Path, tmp_path: Path, capsys: Captured) -> None:
    stores = [str(group), str(tmp_path / "a.zip"), f"file://{tmp_path}/b", str(tmp_path / "c")]
    files = {p.relative_to(group): p.read_bytes() for p in group.rglob("*") if p.is_file()}
    for source, target in pairwise(stores):
        code, out, err = copied(source, target, capsys)
        assert (code, err) == (0, "")
        assert out.startswith(f"copied {len(files)} keys, ")
    last = tmp_path / "c"
    assert {p.relative_to(last): p.read_bytes() for p in last.rglob("*") if p.is_file()} == files


def test_copying_into_a_database_and_a_path_in_it(
    group: Path, tmp_path: Path, capsys: Captured
) -> None:
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path}/a.db"
    assert copied(group, f"{url}#p/q", capsys)[0] == 0
    opened = zarr_gpu.open_group(url, path="p/q", mode="r")
    assert opened.attrs["a"] == 1
    assert sorted(opened) == ["b", "sub"]
    assert copied(f"{url}#p/q/sub", str(tmp_path / "sub"), capsys)[0] == 0
    assert sorted(zarr_gpu.open_group(str(tmp_path / "sub"), mode="r")) == ["deep"]


def test_copying_over_what_is_there(group: Path, tmp_path: Path, capsys: Captured) -> None:
    target = tmp_path / "t"
    assert copied(group, str(target), capsys)[0] == 0
    changed = target / "zarr.json"
    changed.write_bytes(b"changed")
    code, out, err = copied(group, str(target), capsys)
    assert (code, out) == (1, "")
    assert "--force" in err
    assert "exists" in err
    assert changed.read_bytes() == b"changed"
    code, out, err = copied(group, str(target), capsys, "--skip")
    assert (code, err) == (0, "")
    assert re.match(r"copied 0 keys, 0 B, \d kept", out)
    assert changed.read_bytes() == b"changed"
    code, out, err = copied(group, str(target), capsys, "--force", "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith("would copy")
    assert changed.read_bytes() == b"changed"
    assert copied(group, str(target), capsys, "--force")[0] == 0
    assert changed.read_bytes() == (group / "zarr.json").read_bytes()
    assert copied(group, str(target), capsys, "--force", "--skip")[0] == 2


def test_copies_that_fail(group: Path, tmp_path: Path, capsys: Captured) -> None:
    for source, target, message in (
        (tmp_path / "none", "t", "nothing to copy"),
        (group, "nothing://t", "nothing"),
        (group, str(group / "zarr.json"), "zarr.json"),
        (tmp_path / "none.zip", "t", "none.zip"),
    ):
        target = str(tmp_path / "t") if target == "t" else target
        code, out, err = copied(source, target, capsys)
        assert (code, out) == (1, "")
        assert err.startswith("zarr-gpu: error: ")
        assert err.count("\n") == 1
        assert message in err
    assert not (tmp_path / "t").exists()
    assert cli.main(["copy", str(group)]) == 2


def test_copies_to_a_database_that_is_no_file(group: Path, capsys: Captured) -> None:
    pytest.importorskip("sqlalchemy", reason="needs SQLAlchemy: pip install 'zarr-gpu[sql]'")
    code, _, err = copied(group, "sqlite://", capsys)
    assert code == 1
    assert "SQLite store is a file" in err


def test_a_copy_tells_how_far_it_is(group: Path) -> None:
    seen = []
    zarr_gpu.copy_store(str(group), {}, progress=lambda *numbers: seen.append(numbers))
    total = sum(1 for path in group.rglob("*") if path.is_file())
    assert [done for done, _, _ in seen] == [*range(1, total + 1), total]
    assert {of for _, of, _ in seen} == {total}
    assert seen[-1][2] == sum(path.stat().st_size for path in group.rglob("*") if path.is_file())
