"""The predicted time of each batch size to the target, and the sizes that may be the fastest."""

from collections.abc import Callable, Sequence

import numpy as np

from tfmb.advice.batch_curve import HIGH, LOW, BatchCurve, Interval
from tfmb.advice.records import SizePrediction, listed
from tfmb.advice.rounds import TELLS
from tfmb.advice.throughput import Throughput

__all__ = ["as_good_as", "predict", "untold"]

# The curve is off by so much at a batch size: residuals of S(B) on MNIST, MLP, over nine of them.
_MISFIT, _SEED = 0.08, 2


def predict(
    curve: BatchCurve, throughput: Throughput, sizes: Sequence[int], rate_of: Callable[[int], float]
) -> tuple[SizePrediction, ...]:
    """Updates times the time of an update; the interval of their product has the uncertainty of both.

    Args:
        curve: updates over the batch size.
        throughput: the time of an update, measured at all sizes.
        sizes: to predict.
        rate_of: batch size -> learning rate.
    """
    found = []
    for size in sizes:
        updates, step = curve.updates(size), throughput.seconds(size)
        found.append(
            SizePrediction(
                batch_size=size,
                learning_rate=rate_of(size),
                updates=updates,
                step_seconds=step,
                seconds=Interval.around(updates.value * step, _seconds(curve, throughput, size)),
                examples=Interval.around(updates.value * size, curve.drawn(size) * size),
            )
        )
    return tuple(found)


def as_good_as(best: int, curve: BatchCurve, throughput: Throughput, sizes: Sequence[int]) -> tuple[int, ...]:
    """Returns the batch sizes, rising, whose time may well be no longer than the best one's.

    Both are compared draw by draw, because what makes all batch sizes slower makes none of them the better one.
    """
    random = np.random.default_rng(_SEED)
    least = _seconds(curve, throughput, best)
    found = []
    for size in sizes:
        off = np.exp(random.normal(size=len(least)) * _MISFIT * np.sqrt(2))
        ratio = _seconds(curve, throughput, size) / least * off
        if size == best or np.percentile(ratio, LOW) <= 1:
            found.append(size)
    return tuple(found)


def untold(best: int, curve: BatchCurve, throughput: Throughput, sizes: Sequence[int]) -> str | None:
    """Returns why the times of an update cannot name the fastest batch size or its duration; None if they can.

    They tell where in nine of ten draws the best one takes no more than 1.25 times the least, and its own time is known
    to 1.25 times. Updates are taken as they are.
    """
    times = {size: curve.updates(size).value * throughput.draws(size) for size in sizes}
    regret = times[best] / np.min(list(times.values()), axis=0)
    low, high = np.percentile(throughput.draws(best), [LOW, HIGH])
    value = throughput.seconds(best)
    why = throughput.trouble or "the time of an update differs from round to round"
    if np.percentile(regret, HIGH) > TELLS:
        rivals = listed(as_good_as(best, curve, throughput, sizes))
        return f"{why}; it cannot tell whether batch size {rivals} is the fastest: ask again when it is quiet"
    if high > TELLS * value or value > TELLS * low:
        return f"{why}; it cannot tell how long batch size {best} takes: ask again when it is quiet"
    return None


def _seconds(curve: BatchCurve, throughput: Throughput, size: int) -> np.ndarray:
    return np.asarray(curve.drawn(size) * throughput.draws(size))
