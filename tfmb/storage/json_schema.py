"""Checks JSON against a schema of the few keywords that ours use; the schema file is the one place that says them."""

import re
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
        if word not in _CHECKS:
            raise NotImplementedError(f"the keyword {word!r} of a JSON schema")
        if not _CHECKS[word](value, rule, schema, where, root):
            raise DataError(f"{where} is {_short(value)}, which its schema refuses ({word} {_short(rule)})")


def _ref(value: Any, rule: str, schema: Any, where: str, root: Any) -> bool:
    check_schema(value, root["$defs"][rule.removeprefix("#/$defs/")], where, root)
    return True


def _type(value: Any, rule: Any, *_: Any) -> bool:
    return any(_TYPES[name](value) for name in ([rule] if isinstance(rule, str) else rule))


def _required(value: Any, rule: list[str], schema: Any, where: str, root: Any) -> bool:
    if isinstance(value, dict) and (missing := [name for name in rule if name not in value]):
        raise DataError(f"{where} has no {missing[0]!r}")
    return True


def _properties(value: Any, rule: dict[str, Any], schema: Any, where: str, root: Any) -> bool:
    if isinstance(value, dict):
        for name, inner in rule.items():
            if name in value:
                check_schema(value[name], inner, f"{where}.{name}", root)
    return True


def _additional(value: Any, rule: Any, schema: dict[str, Any], where: str, root: Any) -> bool:
    if isinstance(value, dict):
        for name in value.keys() - schema.get("properties", {}).keys():
            if rule is False:
                raise DataError(f"{where} has an unknown entry {_short(name)}")
            check_schema(value[name], rule, f"{where}.{_short(name)[1:-1]}", root)
    return True


def _names(value: Any, rule: Any, schema: Any, where: str, root: Any) -> bool:
    for name in value if isinstance(value, dict) else ():
        check_schema(name, rule, f"a name in {where}", root)
    return True


def _items(value: Any, rule: Any, schema: Any, where: str, root: Any) -> bool:
    if isinstance(value, list):
        for place, item in enumerate(value):
            check_schema(item, rule, f"{where}[{place}]", root)
    return True


_CHECKS: dict[str, Any] = {
    "$ref": _ref,
    "type": _type,
    "const": lambda value, rule, *_: value == rule and type(value) is type(rule),
    "enum": lambda value, rule, *_: value in rule,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "propertyNames": _names,
    "items": _items,
    # `$` is the end, as JSON Schema has it; Python's would let a last line break pass.
    "pattern": lambda value, rule, *_: not isinstance(value, str) or bool(re.search(rule.replace("$", r"\Z"), value)),
    "maxLength": lambda value, rule, *_: not isinstance(value, str) or len(value) <= rule,
    "minimum": lambda value, rule, *_: not _TYPES["number"](value) or value >= rule,
    "maximum": lambda value, rule, *_: not _TYPES["number"](value) or value <= rule,
    "exclusiveMinimum": lambda value, rule, *_: not _TYPES["number"](value) or value > rule,
    "minItems": lambda value, rule, *_: not isinstance(value, list) or len(value) >= rule,
    "maxItems": lambda value, rule, *_: not isinstance(value, list) or len(value) <= rule,
    "maxProperties": lambda value, rule, *_: not isinstance(value, dict) or len(value) <= rule,
}


def _short(value: Any) -> str:
    # Of a deep or huge value only the kind: its text could be as deep or huge.
    text = f"{type(value).__name__} of {len(value)}" if isinstance(value, (dict, list)) else ascii(value)
    return text if len(text) < _MOST_SHOWN else f"{text[: _MOST_SHOWN - 10]}..."
