"""Hierarchies drawn as trees of text or HTML.

Imports nothing of ours; called by ``group``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Tree", "draw_tree"]


class Tree:
    """A drawn hierarchy; shows itself as text, and as HTML in notebooks."""

    def __init__(self, lines: list[tuple[str, str, str]]) -> None:
        self._lines = lines  # (lines of the drawing, name, the rest)

    def __repr__(self) -> str:
        return "\n".join(f"{drawing}{name}{rest}" for drawing, name, rest in self._lines)

    def _repr_html_(self) -> str:
        import html  # its table of entities is large

        rows = (
            f"{drawing}<b>{html.escape(name)}</b>{html.escape(rest)}"
            for drawing, name, rest in self._lines
        )
        return "<pre>" + "\n".join(rows) + "</pre>"


def draw_tree(
    root: str,
    group: Any,
    list_members: Callable[[Any], Iterable[tuple[str, Any, str]]],
    *,
    level: int | None = None,
    max_nodes: int = 500,
) -> Tree:
    """Draw what lies below a group.

    Parameters
    ----------
    root
        What stands on the first line.
    group
        The group; of no meaning here.
    list_members
        From a group to (name, the group or None for an array, what to write behind the name).
    level
        Deepest level that is drawn; None for all.
    max_nodes
        Most members that are drawn; a last line tells that there are more.
    """
    lines = [("", root, "")]
    # Depth first by an explicit stack: hierarchies may be deeper than Python's.
    stack = [("", iter(_marked(list_members(group))), 1)]
    while stack:
        indent, members, depth = stack[-1]
        following = next(members, None)
        if following is None:
            stack.pop()
            continue
        name, below, rest, last = following
        if len(lines) > max_nodes:
            lines.append(("", "...", f" (more than {max_nodes} members)"))
            break
        lines.append((f"{indent}{'└── ' if last else '├── '}", name, rest))
        if below is not None and (level is None or depth < level):
            deeper = f"{indent}{'    ' if last else '│   '}"
            stack.append((deeper, iter(_marked(list_members(below))), depth + 1))
    return Tree(lines)


def _marked(members: Iterable[tuple[str, Any, str]]) -> Iterable[tuple[str, Any, str, bool]]:
    """Members with a mark on the last one."""
    rest = iter(members)
    current = next(rest, None)
    while current is not None:
        following = next(rest, None)
        yield *current, following is None
        current = following
