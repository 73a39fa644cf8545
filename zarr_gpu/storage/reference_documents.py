"""Reference documents of kerchunk: JSON of versions 0 and 1.

``parse_references`` turns one into a mapping from store key to a *reference*: text (a value in the
document itself), a list ``[url]`` (a whole file) or ``[url, offset, length]`` (a range of one).

Documents come from others.  Templates are filled in by a small language of names, numbers, text,
``+ - * // %`` and calls of other templates, never by ``eval``; what is generated is bounded.

Imports ``errors`` and its sibling ``keys``; called by ``storage/reference.py``.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from zarr_gpu.errors import InvalidKeyError, MetadataError
from zarr_gpu.storage.keys import check_keys

__all__ = ["MAX_GENERATED", "Reference", "inline_bytes", "parse_references"]

Reference = str | list[Any]

MAX_GENERATED = 1_000_000
"""References that the ``gen`` of a document may make."""

MAX_TEXT = 4096
"""Characters of a name or URL made from a template."""

_SLOT = re.compile(r"\{\{(.*?)\}\}")
_FORMAT = re.compile(r"%[0 +-]{0,3}\d{0,2}(?:\.\d{1,2})?[dsxof]")
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}


def parse_references(
    document: bytes | Mapping[str, Any], *, max_generated: int = MAX_GENERATED
) -> dict[str, Reference]:
    """References by key.

    Raises
    ------
    MetadataError
        The document is malformed, of an unknown version, or generates too much.
    """
    if isinstance(document, Mapping):
        tree: Any = document
    else:
        try:
            tree = json.loads(document)
        except (ValueError, RecursionError) as cause:
            raise MetadataError(f"a reference document must be JSON: {cause}") from cause
    if not isinstance(tree, Mapping):
        raise MetadataError("a reference document must be a JSON object")
    if "refs" not in tree and "version" not in tree:
        references = {key: _checked(key, value, {}) for key, value in tree.items()}
    else:
        if tree.get("version") != 1:
            raise MetadataError(f"references of version {tree.get('version')!r} are not known")
        templates = _mapping(tree, "templates")
        references = {
            key: _checked(key, value, templates) for key, value in _mapping(tree, "refs").items()
        }
        references.update(_generated(tree.get("gen") or [], templates, max_generated))
    try:
        check_keys(list(references))
    except InvalidKeyError as cause:
        raise MetadataError(f"a reference document with an invalid key: {cause}") from cause
    return references


def inline_bytes(key: str, text: str) -> bytes:
    """The value that a document itself holds."""
    if not text.startswith("base64:"):
        return text.encode()
    import base64

    try:
        return base64.b64decode(text.removeprefix("base64:"), validate=True)
    except ValueError as cause:
        raise MetadataError(f"reference {key!r} is no valid base64", key=key) from cause


def _mapping(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = tree.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise MetadataError(f"{name!r} of a reference document must be an object")
    return value


def _checked(key: str, value: Any, templates: Mapping[str, Any]) -> Reference:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return json.dumps(value)
    if isinstance(value, list) and len(value) in {1, 3} and isinstance(value[0], str):
        url = _fill(value[0], templates) if templates and "{{" in value[0] else value[0]
        if len(value) == 1:
            return [url]
        return [url, _number(key, value[1]), _number(key, value[2])]
    raise MetadataError(
        f"reference {key!r} must be text, [url] or [url, offset, length]", key=str(key)
    )


def _number(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 61:
        raise MetadataError(f"reference {key!r}: {value!r} is no offset or length", key=key)
    return value


# ------------------------------------------------------------------------------------- gen


def _generated(
    rules: Any, templates: Mapping[str, Any], most: int
) -> Iterator[tuple[str, Reference]]:
    if not isinstance(rules, list):
        raise MetadataError("'gen' of a reference document must be a list")
    made = 0
    for rule in rules:
        try:
            axes = {name: _axis(values) for name, values in rule["dimensions"].items()}
            key, url = rule["key"], rule["url"]
            extent = [rule[name] for name in ("offset", "length") if name in rule]
        except (KeyError, TypeError, AttributeError) as cause:
            raise MetadataError("a rule of 'gen' needs key, url and dimensions") from cause
        if len(extent) == 1:
            raise MetadataError("a rule of 'gen' has offset and length, or neither")
        made += math.prod(map(len, axes.values()))
        if made > most:
            raise MetadataError(f"'gen' of a reference document makes more than {most} references")
        for values in itertools.product(*axes.values()):
            names = {**templates, **dict(zip(axes, values, strict=True))}
            numbers = [_filled_number(text, names) for text in extent]
            name = _fill(key, names)
            yield name, _checked(name, [_fill(url, names), *numbers], {})


def _axis(values: Any) -> range | list[Any]:
    if isinstance(values, list):
        return values
    try:
        axis = range(values.get("start", 0), values["stop"], values.get("step", 1))
        len(axis)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as cause:
        raise MetadataError(f"a dimension of 'gen' cannot be {values!r}") from cause
    return axis


def _filled_number(text: Any, names: Mapping[str, Any]) -> int:
    if isinstance(text, int):
        return text
    try:
        return int(float(_fill(text, names))) if "." in str(text) else int(_fill(text, names))
    except ValueError as cause:
        raise MetadataError(f"{text!r} gives no whole number") from cause


# -------------------------------------------------------------------------------- templates


def _fill(text: Any, names: Mapping[str, Any], depth: int = 0) -> str:
    """``text`` with what stands in double braces evaluated."""
    if not isinstance(text, str):
        raise MetadataError(f"a template must be text, not {text!r}")
    if depth > 8:
        raise MetadataError("templates of references call each other without end")
    result = _SLOT.sub(lambda slot: _shown(slot.group(1), names, depth), text)
    if len(result) > MAX_TEXT:
        raise MetadataError(f"a template makes more than {MAX_TEXT} characters")
    return result


def _shown(expression: str, names: Mapping[str, Any], depth: int) -> str:
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        return str(_value(tree.body, names, depth))
    except MetadataError:
        raise
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as e:
        raise MetadataError(f"cannot fill in the template {{{{{expression[:100]}}}}}: {e}") from e


def _value(node: ast.expr, names: Mapping[str, Any], depth: int) -> Any:
    value: Any = None
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
        value = node.value
    elif isinstance(node, ast.Name) and node.id in names:
        value = names[node.id]
        if isinstance(value, str) and "{{" in value:
            value = _fill(value, names, depth + 1)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
        inner = {k.arg: _value(k.value, names, depth) for k in node.keywords if k.arg}
        if node.args or len(inner) != len(node.keywords):
            raise MetadataError("templates are called with named arguments only")
        value = _fill(names[node.func.id], {**names, **inner}, depth + 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = -_value(node.operand, names, depth)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = (_value(side, names, depth) for side in (node.left, node.right))
        _check_operands(node.op, left, right)
        value = _OPERATORS[type(node.op)](left, right)
    else:
        raise MetadataError(f"templates of references know no {ast.unparse(node)[:100]!r}")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise MetadataError("a template makes a number beyond 64 bits")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise MetadataError(f"a template makes more than {MAX_TEXT} characters")
    return value


def _check_operands(op: ast.operator, left: Any, right: Any) -> None:
    """Text may be joined and formatted; anything else could grow without bound."""
    if not isinstance(left, str) and not isinstance(right, str):
        return
    if isinstance(op, ast.Add) and isinstance(left, str) and isinstance(right, str):
        return
    if isinstance(op, ast.Mod) and isinstance(left, str):
        rest = _FORMAT.sub("", left)
        if "%" not in rest:
            return
    raise MetadataError("templates of references can only join and format text")
