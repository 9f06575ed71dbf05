"""How long an update takes over the batch size, on this machine, and where larger batches stop to pay."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tfmb.advice.short_runs import ShortRuns
from tfmb.backend import tf
from tfmb.errors import ConfigError

__all__ = ["Throughput", "measure_throughput"]

# Larger batches bring less than this share of the highest throughput more.
_KNEE = 0.8
_SECONDS, _FEWEST, _MOST = 0.25, 4, 100


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Seconds of an update over the batch size.

    Attributes:
        batch_sizes: measured, rising.
        step_seconds: of an update of each.
        too_large: the first batch size that did not fit the device's memory; None where all did.
    """

    batch_sizes: tuple[int, ...]
    step_seconds: tuple[float, ...]
    too_large: int | None = None

    @property
    def examples_per_second(self) -> tuple[float, ...]:
        """Of each batch size."""
        return tuple(size / seconds for size, seconds in zip(self.batch_sizes, self.step_seconds, strict=True))

    @property
    def knee(self) -> int:
        """The smallest batch size with four fifths of the highest throughput."""
        rates = self.examples_per_second
        return next(size for size, rate in zip(self.batch_sizes, rates, strict=True) if rate >= _KNEE * max(rates))

    @property
    def fastest(self) -> int:
        """The batch size with the highest throughput."""
        rates = self.examples_per_second
        return self.batch_sizes[rates.index(max(rates))]

    def seconds(self, batch_size: float) -> float:
        """Of an update: between two measured ones on a straight line, beyond them in proportion to the last."""
        sizes, times = self.batch_sizes, self.step_seconds
        if batch_size <= sizes[0]:
            return times[0]  # what a small update takes is mostly not its examples
        if batch_size >= sizes[-1]:
            return times[-1] * batch_size / sizes[-1]
        place = sum(size <= batch_size for size in sizes) - 1
        share = (batch_size - sizes[place]) / (sizes[place + 1] - sizes[place])
        return times[place] + share * (times[place + 1] - times[place])


def measure_throughput(
    runs: ShortRuns, batch_sizes: Sequence[int], is_over: Callable[[], bool] = lambda: False
) -> Throughput:
    """Times real updates of each batch size.

    Args:
        runs: of the problem.
        batch_sizes: in any order.
        is_over: whether the time is over, asked before each.

    Raises:
        ConfigError: there is none, or not even the smallest fits.
    """
    sizes, times = list[int](), list[float]()
    too_large: int | None = None
    for size in sorted(set(batch_sizes)):
        if sizes and is_over():
            break
        try:
            # Some first: they trace, and show how many are worth the time.
            first = runs.time_updates(size, _FEWEST)
            count = min(max(math.ceil(_SECONDS / max(first, 1e-6)), _FEWEST), _MOST)
            times.append(min(first, runs.time_updates(size, count)) if count > _FEWEST else first)
            sizes.append(size)
        except (MemoryError, tf.errors.ResourceExhaustedError):
            too_large = size
            break
    if not sizes:
        raise ConfigError("there is no batch size to measure that fits the device: give smaller batch_sizes")
    return Throughput(batch_sizes=tuple(sizes), step_seconds=tuple(times), too_large=too_large)
