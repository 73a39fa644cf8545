"""What holds for every store.

A test class inherits ``StoreSuite`` and supplies the fixture ``store``: an empty, writable store.
What the store does not promise is stated by the class attributes of
:class:`~store_suite_base.StoreChecks`; a store that cannot be written overrides ``fill``.
"""

from __future__ import annotations

from store_suite_base import (
    BAD_KEYS,
    FAULTS,
    MANY,
    PinnedMemory,
    RecordingMemory,
    StoreChecks,
    about,
    ask,
    at_once,
    blob,
    changes,
    check_fault,
    fetch,
    in_child,
    in_children,
    needs,
    parts,
    reads,
)
from store_suite_coalescing import CoalescingChecks
from store_suite_lists import ListChecks
from store_suite_processes import ProcessChecks
from store_suite_reads import ReadChecks
from store_suite_rules import RuleChecks
from store_suite_writes import WriteChecks

__all__ = [
    "BAD_KEYS",
    "FAULTS",
    "MANY",
    "PinnedMemory",
    "RecordingMemory",
    "StoreChecks",
    "StoreSuite",
    "about",
    "ask",
    "at_once",
    "blob",
    "changes",
    "check_fault",
    "fetch",
    "in_child",
    "in_children",
    "needs",
    "parts",
    "reads",
]


class StoreSuite(ReadChecks, CoalescingChecks, WriteChecks, ListChecks, RuleChecks, ProcessChecks):
    """Inherit and supply the fixture ``store``."""
