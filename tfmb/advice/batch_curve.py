"""Updates to a target over the batch size, from a few measured ones.

McCandlish et al. 2018 (arXiv:1812.06162): with the best rate for each batch size B, the updates to a target are
S(B) = S_min (1 + B_crit / B): below the critical batch size B_crit twice the batch takes half of the updates, above it
it takes as many.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tfmb.errors import ConfigError

__all__ = ["HIGH", "LOW", "BatchCurve", "Interval", "fit_curve"]

# How uncertain a measured number of updates is at least: of S(B) on MNIST.
_NOISE = 0.1
_DRAWS, _SEED = 2000, 0
LOW, HIGH = 5.0, 95.0
_FACTORS = 1e4  # B_crit is looked for so far outside of the batches that were measured


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its 90 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def around(cls, value: float, drawn: np.ndarray) -> "Interval":
        """A value, with 90 % of what was drawn around it."""
        low, high = np.percentile(drawn, [LOW, HIGH])
        return cls(value=float(value), low=float(low), high=float(high))

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def to_list(self) -> list[float | None]:
        """`[low, high]`, as JSON knows them."""
        return [end if math.isfinite(end) else None for end in (self.low, self.high)]


@dataclass(frozen=True, kw_only=True)
class BatchCurve:
    """S(B) = S_min (1 + B_crit / B).

    Attributes:
        least_updates: S_min, those of a batch without noise.
        critical_batch_size: B_crit.
        residual: the measured updates' deviation from the curve, of their logarithm.
        draws: `[draws, 2]`, S_min and B_crit of fits to what might have been measured as well.
    """

    least_updates: Interval
    critical_batch_size: Interval
    residual: float
    draws: np.ndarray = field(repr=False)

    def updates(self, batch_size: float) -> Interval:
        """Updates to the target."""
        value = self.least_updates.value * (1 + self.critical_batch_size.value / batch_size)
        return Interval.around(value, self.drawn(batch_size))

    def drawn(self, batch_size: float) -> np.ndarray:
        """`[draws]`, updates to the target as they might have been found as well."""
        return np.asarray(self.draws[:, 0] * (1 + self.draws[:, 1] / batch_size))


def fit_curve(batch_sizes: Sequence[int], updates: Sequence[Sequence[float]]) -> BatchCurve:
    """Fits the curve to the mean logarithms of measured updates, by least squares.

    Args:
        batch_sizes: at least two different ones.
        updates: to the target, each more than 0; for each batch size those of some seeds.

    Raises:
        ConfigError: too few.
    """
    sizes, logs = np.array(batch_sizes, float), np.array([np.mean(np.log(one)) for one in updates])
    if len(set(batch_sizes)) < 2:
        raise ConfigError(f"updates were measured at {len(set(batch_sizes))} batch size(s): a curve needs two")
    least, critical = _fit(sizes, logs)
    off = logs - math.log(least) - np.log1p(critical / sizes)
    freedom = max(len(sizes) - 2, 1)
    residual = math.sqrt(float(off @ off) / freedom)
    random = np.random.default_rng(_SEED)
    noise = random.normal(size=(_DRAWS, len(sizes))) * max(residual, _of_means(updates), _NOISE)
    fitted = logs - off
    draws = np.array([_fit(sizes, fitted + one) for one in noise])
    return BatchCurve(
        least_updates=Interval.around(least, draws[:, 0]),
        critical_batch_size=Interval.around(critical, draws[:, 1]),
        residual=residual,
        draws=draws,
    )


def _of_means(updates: Sequence[Sequence[float]]) -> float:
    """The deviation of a mean logarithm, as far as seeds tell: pooled over all batch sizes."""
    squares = sum(len(one) * float(np.var(np.log(one))) for one in updates)
    freedom = sum(len(one) - 1 for one in updates)
    return math.sqrt(squares / freedom / (1 + freedom / len(updates))) if freedom else 0.0


def _fit(sizes: np.ndarray, logs: np.ndarray) -> tuple[float, float]:
    """(S_min, B_crit). For each B_crit the best S_min is known, so one number is looked for: first on a grid."""

    def left(candidates: np.ndarray) -> np.ndarray:
        off = logs - np.log1p(candidates[:, None] / sizes)
        return np.asarray(((off - off.mean(1, keepdims=True)) ** 2).sum(1))

    low, high = math.log(sizes.min() / _FACTORS), math.log(sizes.max() * _FACTORS)
    for _ in range(5):
        grid = np.linspace(low, high, 60)
        best = int(np.argmin(left(np.exp(grid))))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    critical = math.exp(grid[best])
    return math.exp(float((logs - np.log1p(critical / sizes)).mean())), critical
