"""Whether a script did with us what it does with Keras."""

import math
from typing import Any

from .running import Ended

__all__ = ["judge", "same_numbers"]

# Of losses after three updates in float32, whose operations another order of fusion may round otherwise.
RELATIVE = 1e-3


def judge(keras: Ended, ours: Ended, again: Ended | None) -> tuple[str, str]:
    """The verdict, and what it rests on.

    Args:
        keras: the run with Keras, which ended a fit.
        ours: the run under `tfmb run --strict`.
        again: a second run with Keras, where the numbers of the first two differ.
    """
    for position, (theirs, mine) in enumerate(zip(keras.calls, ours.calls, strict=False)):
        if "error" in mine and "error" not in theirs:
            return "refused", f"call {position + 1}, {mine['call']}: {mine['error']}"
    if len(ours.calls) < len(keras.calls):
        return "refused", f"ended before call {len(ours.calls) + 1}: {ours.said}"
    if (keras.code, _kind(keras)) != (ours.code, _kind(ours)) and keras.code is not None:
        return "ends otherwise", f"{keras.code} {keras.said} | {ours.code} {ours.said}"
    for position, (theirs, mine) in enumerate(zip(keras.calls, ours.calls, strict=False)):
        if not same_numbers(theirs.get("gives"), mine.get("gives")):
            if again is not None and _differ_too(keras, again):
                return "alike", "Keras's own numbers differ from run to run"
            return "differs", f"call {position + 1}, {mine['call']}: {theirs.get('gives')} | {mine.get('gives')}"[:600]
    return "alike", ""


def same_numbers(one: Any, other: Any) -> bool:
    """Whether two answers have the same keys, and numbers that agree up to rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_numbers(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_numbers, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=1e-5)
    return bool(one == other)


def _kind(ended: Ended) -> str:
    return ended.said.partition(":")[0] if ended.code else ""


def _differ_too(keras: Ended, again: Ended) -> bool:
    return not same_numbers([call.get("gives") for call in keras.calls], [call.get("gives") for call in again.calls])
