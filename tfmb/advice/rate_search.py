"""The learning rate with which one batch size reaches a target soonest, and how it goes over to other batch sizes."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.optimize import isotonic_regression

from tfmb.advice.short_runs import ShortRun
from tfmb.advice.target import Target

__all__ = ["RateTransfer", "Tuned", "tune_rate"]

_FACTOR = 2.0
# Away from rates that reach nothing, in larger steps.
_FAR = 4.0
_MOST_RUNS = 9
# One training differs from another of the same rate by so much: the first is no better than the second.
_AS_GOOD = 1.15
_TURNS = 20


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A batch size with the rates that were tried for it.

    Attributes:
        best: the training that reached the target soonest; None if none did.
        learning_rate: the middle of the rates that are as good as the best, given one seed's noise.
        runs: all trainings.
    """

    best: ShortRun | None
    learning_rate: float | None
    runs: tuple[ShortRun, ...]


def tune_rate(
    train: Callable[[float, int], ShortRun],
    start: float,
    most_updates: int,
    target: Target,
    is_over: Callable[[], bool],
) -> Tuned:
    """Looks for the best rate, in steps of two to both sides. A training ends once it cannot be as good any longer.

    Args:
        train: (rate, most updates) -> a training.
        start: the first rate.
        most_updates: of a training, before one has reached the target.
        target: to reach.
        is_over: whether the time is over, before each training.
    """
    runs: dict[float, ShortRun] = {}

    def badness(rate: float) -> tuple[float, float]:
        """Returns the updates to the target, then the distance from it at the end; lower is better."""
        run = runs[rate]
        if run.updates is not None:
            return run.updates, 0.0
        return math.inf, math.inf if run.diverged else target.short_of(run.looks[-1].value if run.looks else math.nan)

    def least() -> float:
        return min((run.updates for run in runs.values() if run.updates is not None), default=math.inf)

    def try_rate(rate: float) -> bool:
        """Trains once more; returns whether it matches the best or, before any reached the target, came nearer."""
        before = min(map(badness, runs), default=(math.inf, math.inf))
        runs[rate] = train(rate, max(1, math.ceil(min(_AS_GOOD * least(), most_updates))))
        return badness(rate) < before or runs[rate].updates is not None

    def done() -> bool:
        return len(runs) >= _MOST_RUNS or is_over()

    rate = start
    try_rate(rate)
    while runs[rate].diverged and not done():
        rate /= _FAR
        try_rate(rate)
    middle = rate
    for factor in (_FACTOR, 1 / _FACTOR):
        rate = middle * factor
        while not done() and rate not in runs and try_rate(rate):
            rate *= factor
    best = min(runs, key=badness)
    if runs[best].updates is None:
        return Tuned(best=None, learning_rate=None, runs=tuple(runs.values()))
    good = [r for r, run in runs.items() if run.updates is not None and run.updates <= _AS_GOOD * least()]
    return Tuned(best=runs[best], learning_rate=statistics.geometric_mean(good), runs=tuple(runs.values()))


@dataclass(frozen=True, kw_only=True)
class RateTransfer:
    """The best rate over the batch size, on logarithmic scales: a broken line through what was measured, smoothed.

    The rate never falls with the batch, nor grows faster than it: no rule lets it (slope 1 for SGD in Goyal et al.,
    2017, arXiv:1706.02677, up to the critical batch size; Adam is nearer 1/2), and what one seed measured is noisy.
    Beyond the measured batch sizes it goes on with the slope of the nearest two.

    Attributes:
        batch_sizes: measured, rising.
        learning_rates: the best of each.
    """

    batch_sizes: Sequence[int]
    learning_rates: Sequence[float]

    def rate(self, batch_size: float) -> float:
        """The rate for a batch size."""
        sizes, at = [math.log(b) for b in self.batch_sizes], math.log(batch_size)
        rates = _between(sizes, [math.log(r) for r in self.learning_rates])
        if len(sizes) == 1:
            return math.exp(rates[0])
        place = min(max(sum(size <= at for size in sizes) - 1, 0), len(sizes) - 2)
        slope = (rates[place + 1] - rates[place]) / (sizes[place + 1] - sizes[place])
        return math.exp(rates[place] + slope * (at - sizes[place]))


def _between(sizes: Sequence[float], rates: Sequence[float]) -> list[float]:
    """The nearest logarithms of rates whose slopes lie between 0 and 1, by least squares in turns."""
    found = list(rates)
    for _ in range(_TURNS):
        found = _rising(found)
        # Not faster than the batch: what the batch is ahead of the rate never falls.
        ahead = _rising([size - rate for size, rate in zip(sizes, found, strict=True)])
        found = [size - value for size, value in zip(sizes, ahead, strict=True)]
    return found


def _rising(values: Sequence[float]) -> list[float]:
    """The nearest values that never fall: those that do are replaced by their mean."""
    return [float(value) for value in isotonic_regression(values).x]
