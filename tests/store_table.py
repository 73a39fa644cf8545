"""The table store x check: ``pytest --store-table FILE`` writes what this run has shown.

One column for each test class that inherits :class:`~store_suite.StoreSuite`, one row for each
check: passed, not promised by the store, failed, or skipped (its server could not be had).  The
workers of pytest-xdist each send what they have seen to the process that writes the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from store_suite import StoreSuite

SIGNS = {"passed": "✓", "not promised": "·", "failed": "**failed**"}
RANK = ("not promised", "not run", "passed", "skipped", "failed")
SEEN = set(RANK[2:])


class StoreTable:
    """A pytest plugin that collects the outcomes of the suite and writes them at the end."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.where: dict[str, tuple[str, str]] = {}  # title and check of each test
        self.outcomes: dict[str, dict[str, str]] = {}  # of each check, by title

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            if isinstance(item, pytest.Function) and item.cls and issubclass(item.cls, StoreSuite):
                self.add(item.nodeid, item.cls, item.originalname)

    def add(self, test: str, store: type[StoreSuite], check: str) -> None:
        """Expect an outcome of a test."""
        self.where[test] = title(store), check
        if title(store) not in self.outcomes:
            self.outcomes[title(store)] = {
                name: "not promised" if getattr(store, name) is None else "not run"
                for name in suite_checks()
            }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self.where and (report.when == "call" or not report.passed):
            store, check = self.where[report.nodeid]
            self.note(store, check, report.outcome)

    def note(self, store: str, check: str, outcome: str) -> None:
        """Keep the worse of what is known and ``outcome``, unless it is a check of one store."""
        found = self.outcomes[store]
        if check in found:
            found[check] = max(found[check], outcome, key=RANK.index)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["store_table"] = self.outcomes
        else:
            self.path.write_text(self.text(), encoding="utf-8")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended."""
        sent: dict[str, dict[str, str]] = getattr(node, "workeroutput", {}).get("store_table", {})
        for store, found in sent.items():
            self.outcomes.setdefault(store, dict(found))
            for check, outcome in found.items():
                self.note(store, check, outcome)

    def text(self) -> str:
        """The table, in Markdown."""
        shown = {s: c for s, c in sorted(self.outcomes.items()) if SEEN & set(c.values())}
        checks = [n for n in suite_checks() if any(found[n] in SEEN for found in shown.values())]
        lines = [
            "# Stores and checks",
            "",
            f"{len(shown)} stores, {len(checks)} checks that each inherits, many with parameters.",
            "Written by `pytest --store-table FILE`; see [stores](stores.md).",
            "",
            "✓ passed, · not promised by this store (what it does instead is a check of its own).",
            "",
        ]
        lines += [f"{i}. {store}" for i, store in enumerate(shown, 1)]
        lines += ["", "| check | " + " | ".join(map(str, range(1, len(shown) + 1))) + " |"]
        lines += ["|---|" + ":-:|" * len(shown)]
        for name in checks:
            marks = " | ".join(SIGNS.get(found[name], found[name]) for found in shown.values())
            lines.append(f"| {name.removeprefix('test_').replace('_', ' ')} | {marks} |")
        return "\n".join(lines) + "\n"


def suite_checks() -> list[str]:
    """Names of all checks, in the order of the suite."""
    names = [n for base in StoreSuite.__mro__ for n in vars(base) if n.startswith("test_")]
    return list(dict.fromkeys(names))


def title(store: type[StoreSuite]) -> str:
    """What a column stands for."""
    return store.title or store.__name__.removeprefix("Test")
