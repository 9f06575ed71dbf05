"""The gradient noise scale: how noisy the gradient of one example is, beside the gradient itself.

McCandlish et al. 2018 (arXiv:1812.06162): B_simple = tr(Sigma) / |G|^2, with the covariance Sigma of a single example's
gradient and the true gradient G. A batch far below it wastes updates on noise, one far above it wastes examples.

A batch that is cut into parts anyway (by replicas, virtual replicas or micro-batches) gives both at no extra gradient.
With part p's mean gradient g_p of n_p examples, P parts, N examples and the whole batch's mean gradient g:

    E sum_p n_p |g_p|^2 = N |G|^2 + P tr(Sigma)        E |g|^2 = |G|^2 + tr(Sigma) / N

so that tr(Sigma) = (sum_p n_p |g_p|^2 - N |g|^2) / (P - 1) and |G|^2 = |g|^2 - tr(Sigma) / N in the mean, for parts of
any size. Each update gives an estimate of both, so noisy that their quotient means nothing: the scale is the quotient
of their running means.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfmb.training.step.report import ReportView

__all__ = ["NoiseEstimate", "NoiseScaleEstimator", "noise_of_epoch"]

_WINDOW = 200
_QUANTILE = 1.6448536  # of the normal distribution: 90 % lie within so many deviations
_FEWEST = 10.0


@dataclass(frozen=True, kw_only=True)
class NoiseEstimate:
    """A noise scale with its interval.

    Attributes:
        value: in examples; None if it is undetermined: too few updates, or a gradient that cannot be told from 0.
        low: lower end of the 90 % interval; None if the value is.
        high: upper end; infinity where the gradient may be 0.
        updates: the number of updates that count, older ones less.
    """

    value: float | None
    low: float | None
    high: float | None
    updates: float

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return f"undetermined after {self.updates:.0f} updates"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


class NoiseScaleEstimator:
    """Adds up the noise that updates show, older ones with less weight: the scale rises while a model learns.

    Args:
        window: the number of updates that count: each one's weight falls by 1 / window an update. None for all alike.
    """

    def __init__(self, window: int | None = _WINDOW) -> None:
        self._keep = 1.0 if window is None else 1.0 - 1.0 / window
        # Sums of: weights, their squares, noise, signal, noise^2, signal^2, noise * signal.
        self._sums = [0.0] * 7

    def add(self, noise: float, signal: float) -> None:
        """Takes one update's estimates of tr(Sigma) and |G|^2, but those that are not finite, or both 0."""
        if not (math.isfinite(noise) and math.isfinite(signal)) or noise == signal == 0.0:
            return
        new = (1.0, 1.0, noise, signal, noise * noise, signal * signal, noise * signal)
        kept = (self._keep, self._keep**2, *[self._keep] * 5)
        self._sums = [old * keep + one for old, keep, one in zip(self._sums, kept, new, strict=True)]

    def updates_made(self, report: Any) -> None:
        """Takes the estimates of the loop's report: the estimator is one of the loggers."""
        for noise, signal in report.noise:
            self.add(noise, signal)

    def epoch_ended(self, report: Any) -> None:
        """Does nothing."""

    def estimate(self) -> NoiseEstimate:
        """The scale as it stands, with Fieller's interval of a quotient of means."""
        weight, squares, noise, signal, noise2, signal2, both = self._sums
        count = weight**2 / squares if squares else 0.0
        undetermined = NoiseEstimate(value=None, low=None, high=None, updates=count)
        if count < _FEWEST:
            return undetermined
        noise, signal = noise / weight, signal / weight
        scale = 1.0 / (count - 1)  # the variance of a mean, from a sample's own
        var_noise = max(noise2 / weight - noise**2, 0.0) * scale
        var_signal = max(signal2 / weight - signal**2, 0.0) * scale
        covariance = (both / weight - noise * signal) * scale
        square = _QUANTILE**2
        # The values r for which noise - r * signal lies within the quantile of its own deviation.
        a = signal**2 - square * var_signal
        b = noise * signal - square * covariance
        c = noise**2 - square * var_noise
        if signal <= 0 or noise <= 0:
            return undetermined
        value = noise / signal
        inside = b * b - a * c
        if a <= 0 or inside < 0:  # the gradient may be 0
            low = max((noise - _QUANTILE * math.sqrt(var_noise)) / (signal + _QUANTILE * math.sqrt(var_signal)), 0.0)
            return NoiseEstimate(value=value, low=low, high=math.inf, updates=count)
        root = math.sqrt(inside)
        return NoiseEstimate(value=value, low=max((b - root) / a, 0.0), high=(b + root) / a, updates=count)

    @property
    def means(self) -> tuple[float, float]:
        """(tr(Sigma), |G|^2): the running means; NaN before the first update."""
        weight, _, noise, signal, *_ = self._sums
        return (noise / weight, signal / weight) if weight else (math.nan, math.nan)

    def state(self) -> list[float]:
        """Returns the estimator's state, as numbers."""
        return list(self._sums)

    def restore(self, state: Sequence[float]) -> None:
        """Takes back the sums that `state` gave; none if that is empty."""
        self._sums = [float(value) for value in state] or [0.0] * 7


def noise_of_epoch(sums: ReportView) -> dict[str, float]:
    """The noise scale from the sum of an epoch's reports, NaN if it is undetermined; empty if it is not measured."""
    if not sums.has_noise:
        return {}
    noise, signal = (float(value) for value in sums.noise)
    return {"noise_scale": noise / signal if noise > 0 and signal > 0 else math.nan}
