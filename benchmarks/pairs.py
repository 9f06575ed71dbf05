"""Peers measured in one interleaved run, and the ratio of two of them with its interval."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times faster one peer is than another: the median over pairs, with a 95 % interval of it."""

    median: float
    low: float
    high: float

    def times(self, factor: float) -> "Ratio":
        """The ratio and its interval, multiplied."""
        return Ratio(median=factor * self.median, low=factor * self.low, high=factor * self.high)

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def interleave(peers: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call of each peer, in turns whose order is reversed every round.

    Each peer is called once before, unmeasured, to trace, compile and fill its caches.
    """
    for run in peers.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(rounds):
        names = list(peers) if number % 2 == 0 else list(peers)[::-1]
        for name in names:
            started = time.perf_counter()
            peers[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def speedup(seconds: Mapping[str, list[float]], peer: str, over: str) -> Ratio:
    """`over`'s seconds divided by `peer`'s, pair by pair; the interval is a bootstrap of the median."""
    ratios = np.asarray(seconds[over]) / np.asarray(seconds[peer])
    draws = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return Ratio(median=statistics.median(ratios), low=float(low), high=float(high))
