"""The table of stores and checks tells what passed, failed, was skipped, and is not promised."""

from __future__ import annotations

from pathlib import Path
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


def test_the_table(tmp_path: Path) -> None:
    table = StoreTable(str(tmp_path / "table.md"))

    def report(store: Any, name: str, outcome: str, when: str = "call") -> None:
        place = f"{store.__name__}::{name}::{len(table.where)}"
        table.where[place] = (store, name)
        table.pytest_runtest_logreport(
            pytest.TestReport(place, (place, 0, ""), {}, outcome, None, when)  # type: ignore[arg-type]
        )

    report(Complete, "test_suffixes", "passed", "setup")
    report(Complete, "test_suffixes", "passed")
    report(Complete, "test_suffixes", "failed")
    report(Complete, "test_suffixes", "passed")
    report(Complete, "test_nothing_in_a_batch", "passed")
    report(Complete, "test_closing_twice", "skipped", "setup")
    report(Fixed, "test_suffixes", "passed")
    table.pytest_sessionfinish()
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert "2 stores, 3 checks that each inherits, many with parameters." in lines
    assert lines[lines.index("1. complete") + 1] == "2. fixed"
    assert lines[-3:] == [
        "| suffixes | **failed** | ✓ |",
        "| nothing in a batch | ✓ | · |",
        "| closing twice | skipped | not run |",
    ]
