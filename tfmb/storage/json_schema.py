"""Checks JSON against a schema of the few keywords that ours use; the schema file is the one place that says them."""

import re
from collections.abc import Callable
from typing import Any

from tfmb.errors import DataError

__all__ = ["check_schema"]

_TYPES: dict[str, Any] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_ABOUT = {"$schema", "$id", "$defs", "title", "description"}
_MOST_SHOWN = 60
# (value, its schema, its name in messages)
_Parts = list[tuple[Any, Any, str]]


def check_schema(value: Any, schema: dict[str, Any], where: str, root: dict[str, Any] | None = None) -> None:
    """Raises if a value is not as the schema says.

    Args:
        value: parsed JSON.
        schema: of JSON Schema 2020-12, with the keywords that are named here.
        where: the value's name in error messages.
        root: the schema that `$ref` begins at.

    Raises:
        DataError: the first entry that does not fit.
        NotImplementedError: the schema has another keyword: nothing in it is passed over.
    """
    root = schema if root is None else root
    for word, rule in schema.items():
        if word in _ABOUT:
            continue
        if word == "$ref":
            check_schema(value, root["$defs"][rule.removeprefix("#/$defs/")], where, root)
        elif word in _INNER:
            kind, parts = _INNER[word]
            for inner, its_schema, its_name in parts(value, rule, schema, where) if isinstance(value, kind) else ():
                check_schema(inner, its_schema, its_name, root)
        elif word not in _FITS:
            raise NotImplementedError(f"the keyword {word!r} of a JSON schema")
        elif not _FITS[word](value, rule):
            raise DataError(f"{where} is {_short(value)}, which its schema refuses ({word} {_short(rule)})")


def _required(value: dict[str, Any], rule: list[str], schema: Any, where: str) -> _Parts:
    if missing := [name for name in rule if name not in value]:
        raise DataError(f"{where} has no {missing[0]!r}")
    return []


def _additional(value: dict[str, Any], rule: Any, schema: dict[str, Any], where: str) -> _Parts:
    others = value.keys() - schema.get("properties", {}).keys()
    if rule is False and others:
        raise DataError(f"{where} has an unknown entry {_short(min(others))}")
    return [(value[name], rule, f"{where}.{_short(name)[1:-1]}") for name in others]


# Keyword -> the kind of value that it looks into, and the parts of such a value with their schemas and names.
_INNER: dict[str, tuple[type, Callable[..., _Parts]]] = {
    "required": (dict, _required),
    "properties": (dict, lambda value, rule, _, at: [(value[n], rule[n], f"{at}.{n}") for n in rule if n in value]),
    "additionalProperties": (dict, _additional),
    "propertyNames": (dict, lambda value, rule, _, at: [(name, rule, f"a name in {at}") for name in value]),
    "items": (list, lambda value, rule, _, at: [(item, rule, f"{at}[{n}]") for n, item in enumerate(value)]),
}
_FITS: dict[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, rule: any(_TYPES[name](value) for name in ([rule] if isinstance(rule, str) else rule)),
    "const": lambda value, rule: value == rule and type(value) is type(rule),
    "enum": lambda value, rule: value in rule,
    # `$` is the end, as JSON Schema has it; Python's would let a last line break pass.
    "pattern": lambda value, rule: not isinstance(value, str) or bool(re.search(rule.replace("$", r"\Z"), value)),
    "maxLength": lambda value, rule: not isinstance(value, str) or len(value) <= rule,
    "minimum": lambda value, rule: not _TYPES["number"](value) or value >= rule,
    "maximum": lambda value, rule: not _TYPES["number"](value) or value <= rule,
    "exclusiveMinimum": lambda value, rule: not _TYPES["number"](value) or value > rule,
    "minItems": lambda value, rule: not isinstance(value, list) or len(value) >= rule,
    "maxItems": lambda value, rule: not isinstance(value, list) or len(value) <= rule,
    "maxProperties": lambda value, rule: not isinstance(value, dict) or len(value) <= rule,
}


def _short(value: Any) -> str:
    # Of a deep or huge value only the kind: its text could be as deep or huge.
    text = f"{type(value).__name__} of {len(value)}" if isinstance(value, (dict, list)) else ascii(value)
    return text if len(text) < _MOST_SHOWN else f"{text[: _MOST_SHOWN - 10]}..."
