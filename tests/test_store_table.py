"""The table of stores and checks tells what passed, failed, was skipped, and is not promised."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from store_suite import StoreSuite
from store_table import StoreTable, suite_checks


class Complete(StoreSuite):
    title = "complete"


class Fixed(StoreSuite):
    title = "fixed"
    writable = False


def test_the_suite_is_large_enough() -> None:
    assert len(suite_checks()) >= 60
    unwritable = [name for name in suite_checks() if getattr(Fixed, name) is None]
    assert 20 < len(unwritable) < len(suite_checks()) - 40
    assert all(callable(getattr(Complete, name)) for name in suite_checks())


def test_a_promise_made_again_brings_the_checks_back() -> None:
    class Again(Fixed):
        writable = True

        def test_a_value_is_copied(self) -> None:
            """One of its own."""

    assert Fixed.test_nothing_in_a_batch is None
    assert Again.test_nothing_in_a_batch is StoreSuite.test_nothing_in_a_batch
    assert "test_a_value_is_copied" in vars(Again)


class Noted:
    """A table, and reports of tests that never ran."""

    def __init__(self, path: Path) -> None:
        self.table = StoreTable(str(path))

    def report(self, store: Any, name: str, outcome: Any, when: Any = "call") -> None:
        place = f"{store.__name__}::{name}::{len(self.table.where)}"
        self.table.add(place, store, name)
        self.table.pytest_runtest_logreport(
            pytest.TestReport(place, (place, 0, ""), {}, outcome, None, when)
        )


def ended(*, worker: bool = False) -> Any:
    """A session that has ended, in a worker or not."""
    config = SimpleNamespace(workeroutput={}) if worker else SimpleNamespace()
    return SimpleNamespace(config=config)


def test_the_table(tmp_path: Path) -> None:
    noted = Noted(tmp_path / "table.md")
    noted.report(Complete, "test_suffixes", "passed", "setup")
    noted.report(Complete, "test_suffixes", "passed")
    noted.report(Complete, "test_suffixes", "failed")
    noted.report(Complete, "test_suffixes", "passed")
    noted.report(Complete, "test_nothing_in_a_batch", "passed")
    noted.report(Complete, "test_closing_twice", "skipped", "setup")
    noted.report(Complete, "test_one_of_its_own", "failed")
    noted.report(Fixed, "test_suffixes", "passed")
    noted.table.pytest_sessionfinish(ended())
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert "2 stores, 3 checks that each inherits, many with parameters." in lines
    assert lines[lines.index("1. complete") + 1] == "2. fixed"
    assert lines[-3:] == [
        "| suffixes | **failed** | ✓ |",
        "| nothing in a batch | ✓ | · |",
        "| closing twice | skipped | not run |",
    ]


def test_the_table_of_several_workers(tmp_path: Path) -> None:
    main = Noted(tmp_path / "table.md")
    for outcomes in (("passed", "failed"), ("passed", "passed"), ("skipped", "passed")):
        worker = Noted(tmp_path / "unused.md")
        worker.report(Complete, "test_suffixes", outcomes[0])
        worker.report(Complete, "test_one_range", outcomes[1])
        session = ended(worker=True)
        worker.table.pytest_sessionfinish(session)
        sent = json.loads(json.dumps(session.config.workeroutput))
        main.table.pytest_testnodedown(SimpleNamespace(workeroutput=sent))
    main.table.pytest_testnodedown(SimpleNamespace())  # one that crashed
    main.table.pytest_sessionfinish(ended())
    assert not (tmp_path / "unused.md").exists()
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[-2:] == ["| one range | **failed** |", "| suffixes | skipped |"]
