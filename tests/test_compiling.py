"""Compiling in a process of its own: begun once, waited for by nobody; what it leaves is found."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from kernel_stamps import KERNELS, LOOPS, STAMP, imported, source, stamp

from zarr_gpu.devices import compiling

pytest.importorskip("numba", reason="the compiled loop needs Numba: pip install 'zarr-gpu[fast]'")


class Spawned:
    """Processes that end with a given status when they are told to, in place of the compiler."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, status: int) -> None:
        self.go, self.status, self.begun = folder / "go", status, 0
        self.disk = False
        monkeypatch.setattr(compiling, "_compiled", None)
        monkeypatch.setattr(compiling, "_compiler", None)
        monkeypatch.setattr(compiling, "_spawn", self.spawn)
        monkeypatch.setattr(compiling, "on_disk", lambda: self.disk)

    def spawn(self) -> int:
        self.begun += 1
        code = f"""
import os, sys, time
while not os.path.exists({str(self.go)!r}):
    time.sleep(0.01)
sys.exit({self.status})
"""
        return os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", code], os.environ)

    def end(self) -> None:
        """Let it end, and wait until that was seen."""
        self.go.touch()
        while compiling._compiled is None:
            compiling.compiled_beside()
            time.sleep(0.01)


def test_reading_goes_on_until_the_process_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spawned = Spawned(monkeypatch, tmp_path, 0)
    assert not compiling.compiled_beside()
    assert not compiling.compiled_beside()
    spawned.disk = True
    assert not compiling.compiled_beside()  # half of it may be there
    spawned.end()
    assert compiling.compiled_beside()
    assert spawned.begun == 1


def test_a_process_that_fails_is_not_begun_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spawned = Spawned(monkeypatch, tmp_path, 1)
    assert not compiling.compiled_beside()
    spawned.end()
    assert not compiling.compiled_beside()
    assert spawned.begun == 1


def test_what_is_on_disk_is_not_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spawned = Spawned(monkeypatch, tmp_path, 0)
    spawned.disk = True
    assert compiling.compiled_beside()
    assert not spawned.begun


def test_a_child_does_not_wait_for_its_parents_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spawned = Spawned(monkeypatch, tmp_path, 0)
    assert not compiling.compiled_beside()
    compiling._forget()
    spawned.disk = True
    assert compiling.compiled_beside()
    spawned.go.touch()


def test_the_process_leaves_the_loops_on_disk() -> None:
    """A second one has nothing to compile, and writes nothing."""
    written = []
    for _ in range(2):
        pid = compiling._spawn()
        assert pid is not None
        assert os.waitpid(pid, 0)[1] == 0
        cached = (KERNELS / "__pycache__").glob("host_*.nb*")
        written.append({path.name: path.stat().st_mtime_ns for path in cached})
    assert len(written[0]) >= 6
    assert written[0] == written[1]


@pytest.mark.parametrize("loop", LOOPS)
def test_loops_are_compiled_anew_when_what_they_import_has_changed(loop: str) -> None:
    found = STAMP.search(source(loop))
    assert found, f"kernels/{loop}.py has no stamp"
    assert found.group(1) == stamp(loop), "run: python tests/kernel_stamps.py"
    assert imported(loop) >= {"host_calls", "host_decode"}


def test_loops_older_than_their_source_do_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    source = tmp_path / "kernels" / "loop.py"
    made = tmp_path / "numba" / "kernels_1" / "loop.read-7.py311.nbi"
    for path in (source, made):
        path.parent.mkdir(parents=True)
        path.touch()
    assert compiling._is_newer(source, "read")
    assert not compiling._is_newer(source, "write")
    os.utime(made, (1, 1))
    assert not compiling._is_newer(source, "read")
