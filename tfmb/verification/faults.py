"""The faults of training loops, as deviations of the reference, to explain a training that differs."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfmb.verification.equations import Form
from tfmb.verification.problem import Arrays, Problem
from tfmb.verification.reference import Deviation, VerifiedTask, follow

__all__ = ["FAULTS", "Explanation", "explain", "largest_difference", "nearest"]

# What each fault may look like. Which of these differ from the right answer depends on the task.
FAULTS: dict[str, list[Deviation]] = {
    "missing 1/b": [Deviation(scale="sum"), Deviation(scale="parts")],
    "clip before reduce": [
        Deviation(clips="mean"),
        Deviation(clips="share"),
        Deviation(clips="sum"),
        Deviation(clips="mean", clips_own=False),
        Deviation(clips="sum", clips_own=False),
    ],
    "no bias correction": [Deviation(corrected=False)],
    "dropped tail": [Deviation(keeps_tail=False)],
    "EMA per micro-batch": [Deviation(averages="last"), Deviation(averages="first"), Deviation(averages="second")],
    "schedule per micro-batch": [Deviation(counts="at"), Deviation(counts="before"), Deviation(counts="after")],
    "mean of the parts' means": [Deviation(scale="mean of parts"), Deviation(scale="mean of all parts")],
    "accumulates over the end of an epoch": [Deviation(scale="mean of parts", partition="chunks", runs_on=True)],
    "last batch divided by the whole batch size": [Deviation(scale="nominal")],
    "regularisers left out": [Deviation(regularizes=False)],
    "called with training=False": [Deviation(training=False)],
}
_MANY = 30.0  # how much nearer than the right answer a fault must be to explain a difference
_GUESSED_PARTS = (2, 4)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The faults that come nearest to the result of a training.

    Attributes:
        faults: their names; more than one where only both together explain it.
        error: the largest difference of a weight that is left.
    """

    faults: tuple[str, ...]
    error: float


def largest_difference(found: Arrays, expected: Arrays) -> float:
    """Returns the largest difference over all entries; infinite if one is not finite."""
    errors = [np.max(np.abs(a - b), initial=0.0) for a, b in zip(found, expected, strict=True)]
    largest = float(max(errors, default=0.0))
    return largest if np.isfinite(largest) else float("inf")


def nearest(problem: Problem, task: VerifiedTask, found: Arrays) -> tuple[float, Form]:
    """The error against the right answer, in the convention that comes nearest."""
    return min(
        ((largest_difference(found, follow(problem, task, form)), form) for form in task.forms()),
        key=lambda pair: pair[0],
    )


def explain(
    problem: Problem, task: VerifiedTask, found: Arrays, error: float, tolerances: tuple[float, float]
) -> Explanation | None:
    """Returns the fault, or the two, whose deviation gives the result of a training; None if none does.

    Args:
        problem: the problem of the training.
        task: the options of the training.
        found: the weights that the training gave.
        error: theirs against the right answer.
        tolerances: the error at which a deviation explains them for certain, and the one that rounding in 32 bits may
            leave: then it must be much nearer than the right answer.
    """
    enough, most = tolerances
    found_so_far: list[Explanation] = []
    for candidates in (_single(problem, task), _pairs(problem, task)):
        for names, deviation in candidates:
            for form in task.forms():
                rest = largest_difference(found, follow(problem, task, form, deviation))
                if rest <= enough:
                    return Explanation(faults=names, error=rest)
                found_so_far.append(Explanation(faults=names, error=rest))
    # The first of equals is a single fault.
    best = min(found_so_far, key=lambda explanation: explanation.error, default=None)
    return best if best is not None and best.error <= min(most, error / _MANY) else None


def _single(problem: Problem, task: VerifiedTask) -> Iterator[tuple[tuple[str, ...], Deviation]]:
    for name, deviations in FAULTS.items():
        for deviation in deviations:
            for partition in _cuts(problem, task, deviation):
                yield (name,), partition


def _pairs(problem: Problem, task: VerifiedTask) -> Iterator[tuple[tuple[str, ...], Deviation]]:
    for (a, firsts), (b, seconds) in itertools.combinations(FAULTS.items(), 2):
        for first, second in itertools.product(firsts, seconds):
            changed = [_changes(first), _changes(second)]
            if not set(changed[0]) & set(changed[1]):
                both = Deviation(**{**changed[0], **changed[1]})
                for partition in _cuts(problem, task, both, guess=False):
                    yield (a, b), partition


def _changes(deviation: Deviation) -> dict[str, Any]:
    right = dataclasses.asdict(Deviation())
    return {name: value for name, value in dataclasses.asdict(deviation).items() if value != right[name]}


def _cuts(problem: Problem, task: VerifiedTask, deviation: Deviation, guess: bool = True) -> list[Deviation]:
    """Returns the deviation for each way of cutting batches; nothing if it makes no difference here."""
    changed = _changes(deviation)
    applies = {
        "corrected": task.rule.name in ("adam", "adamw"),
        "clips": task.clip is not None,
        "averages": task.ema_momentum is not None,
        "counts": task.schedule is not None,
        "keeps_tail": task.rows % task.batch_size != 0,
        "regularizes": bool(problem.model.losses),
        "clips_own": bool(problem.model.losses),
        "training": bool(problem.statistics),
    }
    if deviation.scale == "nominal" and task.rows % task.batch_size == 0:
        return []
    if not all(applies.get(name, True) for name in changed):
        return []
    if not deviation.is_cut and not {"averages", "counts"} & set(changed):
        return [deviation]
    # Where nothing is said of parts, a loop may cut batches all the same; or take each row alone.
    counts = (task.parts,) if task.parts > 1 else (*_GUESSED_PARTS, task.batch_size) if guess else ()
    ways: tuple[Any, ...] = ("chunks",) if deviation.runs_on else ("even", "larger", "chunks")
    return [dataclasses.replace(deviation, parts=parts, partition=partition) for parts in counts for partition in ways]
