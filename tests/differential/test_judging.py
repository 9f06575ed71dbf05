"""Each outcome, from what sides may have left."""

from typing import Any

import numpy as np
import pytest

from .judging import judge
from .programs import draw

PROGRAM = {**draw(0), "precision": "float64", "calls": [{"do": "fit", "given": {}, "callbacks": []}], "cut": 1}


def left(value: float = 1.0, error: str | None = None, fits: int = 1) -> dict[str, Any]:
    said = None if error is None else {"class": error, "text": "no\nmore", "trace": "", "fits": fits, "after": 0}
    return {"notes": [] if said else [("fit 1", {"loss": np.array([value])})], "error": said}


@pytest.mark.parametrize(
    ("theirs", "ours", "outcome"),
    [
        (left(), left(), "alike"),
        (left(), left(1 + 1e-13), "alike"),
        (left(), left(1 + 1e-9), "differs"),
        (left(), left(error="tfmb.errors.ConfigError"), "refused"),
        (left(), left(error="tfmb.errors.DataError"), "error"),
        (left(), left(error="builtins.ValueError"), "error"),
        (left(np.nan), left(error="tfmb.errors.DivergenceError"), "set apart"),
        (left(np.nan), left(np.nan), "set apart"),
        (left(error="builtins.ValueError"), left(error="tfmb.errors.ConfigError"), "both raise"),
        (left(error="builtins.ValueError"), left(), "trains"),
        (left(error="builtins.ValueError", fits=0), left(), "set apart"),
        (left(), "crash", "crash"),
        ("hangs", left(), "set apart"),
    ],
)
def test_outcomes(theirs: Any, ours: Any, outcome: str) -> None:
    assert judge(PROGRAM, {"keras": theirs, "whole": ours}, "whole").outcome == outcome


def test_roundings_that_grow_in_keras_may_grow_in_ours() -> None:
    sides = {"keras": left(1.0), "moved": left(1 + 1e-9), "whole": left(1 + 2e-8)}
    assert judge(PROGRAM, sides, "whole").outcome == "alike"
    assert judge(PROGRAM, {**sides, "whole": left(1 + 1e-7)}, "whole").outcome == "differs"


def test_what_keras_does_not_repeat_is_set_apart() -> None:
    sides = {"keras": left(1.0), "again": left(1.5), "whole": left(1.2)}
    assert judge(PROGRAM, sides, "whole").outcome == "set apart"


def test_one_part_has_the_bits_of_the_whole() -> None:
    sides = {"keras": left(1.0), "whole": left(1.0), "cut": left(1 + 1e-15)}
    assert judge(PROGRAM, sides, "cut").outcome == "differs"
    assert judge({**PROGRAM, "cut": 2}, sides, "cut").outcome == "alike"
