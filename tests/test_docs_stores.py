"""What docs/stores.md shows is run, and the pages it links to are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXT = (DOCS / "stores.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_blocks_run(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    language, text = BLOCKS[number]
    assert language == "python"
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "stores.md", "exec"), {"__name__": "stores"})


def test_links_lead_somewhere() -> None:
    links = set(re.findall(r"\]\(([^)#:]+)\)", TEXT))
    assert "store_checks.md" in links
    assert [link for link in sorted(links) if not (DOCS / link).is_file()] == []
