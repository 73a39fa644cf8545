"""The table store x check: ``pytest --store-table FILE`` writes what this run has shown.

One column for each test class that inherits :class:`~store_suite.StoreSuite`, one row for each
check: passed, not promised by the store, failed, or skipped (its server could not be had).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from store_suite import StoreSuite

SIGNS = {"passed": "✓", "not promised": "·", "failed": "**failed**"}
RANK = ("passed", "skipped", "failed")


class StoreTable:
    """A pytest plugin that collects the outcomes of the suite and writes them at the end."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.where: dict[str, tuple[type[StoreSuite], str]] = {}
        self.outcomes: dict[tuple[type[StoreSuite], str], str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            if isinstance(item, pytest.Function) and item.cls and issubclass(item.cls, StoreSuite):
                self.where[item.nodeid] = (item.cls, item.originalname)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        place = self.where.get(report.nodeid)
        if place is None or (report.when != "call" and report.outcome == "passed"):
            return
        before = self.outcomes.get(place, "passed")
        self.outcomes[place] = max(before, report.outcome, key=RANK.index)

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(self.text(), encoding="utf-8")

    def text(self) -> str:
        """The table, in Markdown."""
        checks = [name for name in suite_checks() if any(n == name for _, n in self.outcomes)]
        stores = sorted({store for store, _ in self.outcomes}, key=title)
        lines = [
            "# Stores and checks",
            "",
            f"{len(stores)} stores, {len(checks)} checks that each inherits, many with parameters.",
            "Written by `pytest --store-table FILE`; see [stores](stores.md).",
            "",
            "✓ passed, · not promised by this store (what it does instead is a check of its own).",
            "",
        ]
        lines += [f"{i}. {title(store)}" for i, store in enumerate(stores, 1)]
        lines += ["", "| check | " + " | ".join(map(str, range(1, len(stores) + 1))) + " |"]
        lines += ["|---|" + ":-:|" * len(stores)]
        for name in checks:
            marks = " | ".join(self.mark(store, name) for store in stores)
            lines.append(f"| {name.removeprefix('test_').replace('_', ' ')} | {marks} |")
        return "\n".join(lines) + "\n"

    def mark(self, store: type[StoreSuite], name: str) -> str:
        """What is known of one check of one store."""
        promised = getattr(store, name) is not None
        outcome = self.outcomes.get((store, name), "not run" if promised else "not promised")
        return SIGNS.get(outcome, outcome)


def suite_checks() -> list[str]:
    """Names of all checks, in the order of the suite."""
    names = [n for base in StoreSuite.__mro__ for n in vars(base) if n.startswith("test_")]
    return list(dict.fromkeys(names))


def title(store: type[StoreSuite]) -> str:
    """What a column stands for."""
    return store.title or store.__name__.removeprefix("Test")
