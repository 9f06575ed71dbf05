"""The checks of our schemas, beside the meaning of JSON Schema 2020-12."""

from typing import Any

import pytest

from tfmb.errors import DataError
from tfmb.storage.json_schema import check_schema

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["a"],
    "additionalProperties": False,
    "properties": {
        "a": {"type": ["integer", "null"], "minimum": 0, "maximum": 5},
        "b": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"$ref": "#/$defs/word"}},
        "c": {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "additionalProperties": {"type": "number"}},
        "d": {"const": 1},
        "e": {"enum": ["x", None]},
        "f": {"type": "object", "maxProperties": 1},
        "g": {"type": "boolean"},
    },
    "$defs": {"word": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}},
}


@pytest.mark.parametrize(
    "value",
    [
        {"a": None},
        {"a": 5, "b": ["x", "abc"]},
        {"a": 0, "c": {"x": 1.5, "y": 2}},
        {"a": 1, "d": 1, "e": None},
        {"a": 1, "f": {"x": [[]]}, "g": True},
    ],
)
def test_what_fits(value: Any) -> None:
    check_schema(value, SCHEMA, "it")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], r"it is list of 0, which its schema refuses \(type 'object'\)"),
        ({}, "it has no 'a'"),
        ({"a": 1, "x": 1}, "it has an unknown entry 'x'"),
        ({"a": True}, "it.a is True"),
        ({"a": 1.0}, "it.a is 1.0"),
        ({"a": -1}, r"it.a is -1, which its schema refuses \(minimum 0\)"),
        ({"a": 6}, "maximum 5"),
        ({"a": 1, "b": []}, "it.b is list of 0"),
        ({"a": 1, "b": ["x"] * 3}, "maxItems"),
        ({"a": 1, "b": ["x", 2]}, r"it.b\[1\] is 2"),
        ({"a": 1, "b": ["x\n"]}, "pattern"),
        ({"a": 1, "b": ["abcd"]}, "maxLength"),
        ({"a": 1, "c": {"X": 1}}, "a name in it.c is 'X'"),
        ({"a": 1, "c": {"x": "1"}}, "it.c.x is '1'"),
        ({"a": 1, "c": {"x\n": 1}}, r"a name in it.c is 'x\\n'"),
        ({"a": 1, "f": 1}, "it.f is 1"),
        ({"a": 1, "d": True}, "const"),
        ({"a": 1, "e": "y"}, "enum"),
        ({"a": 1, "f": {"x": 1, "y": 1}}, "maxProperties"),
        ({"a": 1, "g": 1}, "it.g is 1"),
    ],
)
def test_what_does_not(value: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        check_schema(value, SCHEMA, "it")
    assert "\n" not in str(caught.value)


def test_odd_names_are_shown_plainly() -> None:
    with pytest.raises(DataError, match=r"it.x\\n is 'y'"):
        check_schema({"x\n": "y"}, {"additionalProperties": {"type": "number"}}, "it")


def test_a_keyword_that_is_not_known_is_not_passed_over() -> None:
    with pytest.raises(NotImplementedError, match="uniqueItems"):
        check_schema([], {"uniqueItems": True}, "it")
