"""A sweep of the learning rate: the rate of the steepest fall of the loss, its extent, and the rate of divergence.

Smith 2017 (arXiv:1506.01186): the rate grows exponentially from update to update, and the loss tells at which rates a
model learns. The loss of an update is noisy, so it is smoothed by a running mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["RateCurve", "read_curve"]

# The smoothing's window, and the stretch that a slope is taken over, as shares of all updates and at least so long.
_WINDOW, _SPAN, _SHORTEST = 1 / 12, 1 / 15, 8
# A smoothed loss that is above its lowest by so much of what it had fallen is on its way up for good.
_UNDONE, _LEAST = 0.5, 0.2
# A loss that falls by less of itself does not fall.
_LEAST_FALL = 0.01
# How far below the edge of divergence a rate must stay.
_MARGIN = 4.0
_FEWEST = 10


@dataclass(frozen=True, kw_only=True)
class RateCurve:
    """A sweep of the learning rate.

    Attributes:
        learning_rates: of each update, rising.
        losses: of each update.
        smoothed: the same, smoothed.
        steepest: the rate where the smoothed loss falls fastest; None if it never falls.
        valley: the rate two thirds along the longest fall; None if there is no fall.
        edge: the first rate where most of the progress was undone; None if that did not happen.
        learning_rate: the advice; None if it is undetermined.
        reason: for it, in words.
    """

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    steepest: float | None
    valley: float | None
    edge: float | None
    learning_rate: float | None
    reason: str


def read_curve(learning_rates: Sequence[float], losses: Sequence[float]) -> RateCurve:
    """Reads a sweep.

    Args:
        learning_rates: of each update, rising.
        losses: of each update; the first that is not finite ends it, and its rate diverges.
    """
    finite = [math.isfinite(loss) for loss in losses]
    count = finite.index(False) if False in finite else len(losses)
    rates, kept = list(map(float, learning_rates)), list(map(float, losses[:count]))
    smoothed = _smooth(kept, max(_WINDOW * len(rates), _SHORTEST))
    edge = _edge(rates, smoothed, count < len(losses))
    steepest, valley = _falls(rates, smoothed, max(round(_SPAN * len(rates)), _SHORTEST))
    chosen, reason = _choose(steepest, valley, edge, len(kept))
    return RateCurve(
        learning_rates=tuple(rates[: len(losses)]),
        losses=tuple(map(float, losses)),
        smoothed=tuple(smoothed),
        steepest=steepest,
        valley=valley,
        edge=edge,
        learning_rate=chosen,
        reason=reason,
    )


def _smooth(losses: Sequence[float], window: float) -> list[float]:
    """Returns the running mean, without the lag of its start: Adam's bias correction."""
    mean, found, kept = 0.0, [], 1 - 1 / window
    for number, loss in enumerate(losses, 1):
        mean = kept * mean + (1 - kept) * loss
        found.append(mean / (1 - kept**number))
    return found


def _edge(rates: Sequence[float], smoothed: Sequence[float], ended: bool) -> float | None:
    if smoothed:
        place = int(np.argmin(smoothed))
        lowest, first = smoothed[place], smoothed[0]
        limit = lowest + _UNDONE * max(first - lowest, _LEAST * abs(first))
        for rate, loss in zip(rates[place:], smoothed[place:], strict=False):
            if loss > limit:
                return rate
    return rates[len(smoothed)] if ended else None


def _falls(rates: Sequence[float], smoothed: Sequence[float], span: int) -> tuple[float | None, float | None]:
    """Returns (rate of the steepest fall, rate two thirds along the longest one)."""
    if len(smoothed) < _FEWEST:
        return None, None
    end = int(np.argmin(smoothed))
    if end < _FEWEST or smoothed[0] - smoothed[end] < _LEAST_FALL * abs(smoothed[0]):
        return None, None
    # Over some updates each: the slope from one to the next is noise.
    places = np.arange(min(span, end), end + 1)
    heights, logs = np.array(smoothed), np.log(rates[: len(smoothed)])
    slopes = (heights[places] - heights[places - places[0]]) / (logs[places] - logs[places - places[0]])
    if min(slopes) >= 0:
        return None, None
    # The longest stretch that falls, by its logarithm: a chain of ever lower values, others between them left out.
    lengths, before = [1] * (end + 1), [-1] * (end + 1)
    for i in range(end + 1):
        for j in range(i):
            if smoothed[i] < smoothed[j] and lengths[j] + 1 > lengths[i]:
                lengths[i], before[i] = lengths[j] + 1, j
    last = int(np.argmax(lengths))
    first = last
    while before[first] >= 0:
        first = before[first]
    two_thirds = first + round((last - first) * 2 / 3)
    middle = int(places[np.argmin(slopes)]) - int(places[0]) // 2
    return float(rates[middle]), float(rates[two_thirds])


def _choose(steepest: float | None, valley: float | None, edge: float | None, updates: int) -> tuple[float | None, str]:
    if steepest is None or valley is None:
        why = "the loss never fell" if updates >= _FEWEST else f"it diverged after {updates} updates"
        return None, f"undetermined: {why}; look at the data, or begin at a lower rate"
    limit = math.inf if edge is None else edge / _MARGIN
    rate = max(steepest, valley)
    if rate > limit:
        return limit, f"a quarter of {edge:.3g}, where training diverges; the loss fell fastest at {steepest:.3g}"
    name = "the loss falls fastest there" if rate == steepest else "two thirds along the longest fall of the loss"
    return rate, name + (f", well below {edge:.3g}, where it diverges" if edge else ", and nothing diverged")
