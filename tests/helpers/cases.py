"""Of many cases of a kind some run early and the others in a later suite: see the README of the tests."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pytest

__all__ = ["by_night", "here", "here_by_name"]


def here(values: Iterable[Any], early: Collection[Any], later: str = "slow", several: bool = False) -> list[Any]:
    """Parameters of which all but `early` have the mark `later`.

    Args:
        values: of a parameter.
        early: those that keep the marks of the test alone; each is one of `values`.
        later: the name of a mark.
        several: whether each value is a tuple, of several parameters.
    """
    values, mark = list(values), getattr(pytest.mark, later)
    assert all(value in values for value in early), "a case that is to run is none"
    marked = [pytest.param(*(value if several else (value,)), marks=mark) for value in values]
    return [value if value in early else late for value, late in zip(values, marked, strict=True)]


def here_by_name(values: dict[str, Any], early: Collection[str], later: str = "slow") -> list[Any]:
    """The same of named values, whose names are their ids."""
    mark = getattr(pytest.mark, later)
    assert all(name in values for name in early), "a case that is to run is none"
    return [pytest.param(v, id=name, marks=[] if name in early else [mark]) for name, v in values.items()]


def by_night() -> list[str]:
    """The names of the cases that `.ci/slow` alone runs, as pytest names them in `tests/`."""
    lines = Path(__file__).parents[1].joinpath("by_night.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]
