"""Plain data that stands for Python expressions: a program made of it can be kept, cut down and shown.

`{"call": "layers.Dense", "of": [...], "with": {...}}` is a call of a name of Keras, `{"code": "..."}` a piece of code,
a list of integers a tuple; all else stands for itself.
"""

from collections.abc import Iterator
from typing import Any

__all__ = ["Term", "call", "calls_in", "code", "expression"]

Term = Any


def call(name: str, /, *of: Term, **given: Term) -> Term:
    """A call of `keras.NAME`, without the arguments that are None."""
    kept = {key: value for key, value in given.items() if value is not None}
    return {"call": name, "of": list(of), "with": kept}


def code(text: str) -> Term:
    """A piece of code."""
    return {"code": text}


def expression(term: Term) -> str:
    """The term as Python code."""
    if isinstance(term, dict) and "call" in term:
        of = [expression(each) for each in term["of"]]
        given = [f"{name}={expression(value)}" for name, value in term["with"].items()]
        return f"keras.{term['call']}({', '.join(of + given)})"
    if isinstance(term, dict) and set(term) == {"code"}:
        return str(term["code"])
    if isinstance(term, dict):
        return "{" + ", ".join(f"{key!r}: {expression(value)}" for key, value in term.items()) + "}"
    if isinstance(term, (list, tuple)):
        inside = ", ".join(map(expression, term))
        if term and all(type(each) is int for each in term):
            return f"({inside},)" if len(term) == 1 else f"({inside})"
        return f"[{inside}]"
    return repr(term)


def calls_in(term: Term) -> Iterator[str]:
    """The names that are called anywhere in it."""
    if isinstance(term, dict):
        if "call" in term:
            yield term["call"]
        for value in term.values():
            yield from calls_in(value)
    elif isinstance(term, (list, tuple)):
        for each in term:
            yield from calls_in(each)
