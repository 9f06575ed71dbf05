"""The time of an update over the batch size on this machine, and the size beyond which larger ones stop to pay."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tfmb.advice.processor import Processor
from tfmb.advice.rounds import draws_of, time_in_rounds
from tfmb.advice.short_runs import ShortRuns
from tfmb.backend import tf
from tfmb.errors import ConfigError

__all__ = ["Throughput", "measure_throughput"]

# Larger batches bring less than this share of the highest throughput more.
_KNEE = 0.8
# A batch size has so many seconds of each round, and so many updates at most. The first ones say how many those are.
_SECONDS, _MOST, _FIRST = 0.04, 100, 2


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Seconds of an update over the batch size.

    Attributes:
        batch_sizes: measured, rising.
        step_seconds: of an update of each: the median over rounds, as far as the cores were its own.
        too_large: the first batch size that did not fit the device's memory; None if all did.
        rounds: of each batch size the seconds of an update in each round; empty if they are exact.
        share_left: of the cores, by others, while they were timed: 1.0 on a quiet machine.
        trouble: the disturbance of the times up to the end; None if there was none.
    """

    batch_sizes: tuple[int, ...]
    step_seconds: tuple[float, ...]
    too_large: int | None = None
    rounds: tuple[tuple[float, ...], ...] = ()
    share_left: float = 1.0
    trouble: str | None = None

    @property
    def examples_per_second(self) -> tuple[float, ...]:
        """The examples a second of each batch size."""
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
        """Returns the seconds of an update: interpolated between measured sizes, in proportion above them."""
        sizes, times = self.batch_sizes, self.step_seconds
        # Below the smallest it is constant: what a small update takes is mostly not its examples.
        return float(np.interp(batch_size, sizes, times)) * max(batch_size / sizes[-1], 1.0)

    def draws(self, batch_size: int) -> np.ndarray:
        """Seconds of an update of a measured batch size as they might have been found as well: see `draws_of`."""
        place = self.batch_sizes.index(batch_size)
        seconds = self.rounds[place] if self.rounds else (self.step_seconds[place],)
        return draws_of(seconds, self.share_left, batch_size)


def measure_throughput(
    runs: ShortRuns,
    batch_sizes: Sequence[int],
    is_over: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
) -> Throughput:
    """Times real updates of all batch sizes in turns: see `time_in_rounds`.

    Args:
        runs: of the problem.
        batch_sizes: in any order.
        is_over: whether the time is over, asked before each batch size is tried, and before each round but the first.
        say: gets a line where the machine is busy and it measures again.

    Raises:
        ConfigError: there is none, or not even the smallest fits.
    """
    counts: dict[int, int] = {}
    too_large: int | None = None
    for size in sorted(set(batch_sizes)):
        if counts and is_over():
            break
        try:
            # They trace, and show how many are worth the time.
            first = runs.time_updates(size, _FIRST)
            counts[size] = min(max(math.ceil(_SECONDS / max(first, 1e-6)), 1), _MOST)
        except (MemoryError, tf.errors.ResourceExhaustedError):
            too_large = size
            break
    if not counts:
        raise ConfigError("none of the batch sizes fits on the device: give smaller batch_sizes")
    sizes = list(counts)
    found = time_in_rounds(
        lambda size: runs.time_updates(size, counts[size], traces=False),
        sizes,
        Processor().meanwhile,
        is_over=is_over,
        say=say,
    )
    return Throughput(
        batch_sizes=tuple(sizes),
        step_seconds=tuple(float(np.median(draws_of(found.seconds[s], found.share_left, s))) for s in sizes),
        too_large=too_large,
        rounds=tuple(found.seconds[size] for size in sizes),
        share_left=found.share_left,
        trouble=found.trouble,
    )
