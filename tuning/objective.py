"""What a search compares trials by: a metric of the validation data, or what it took to reach a value of one."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tfmb.errors import ConfigError

from .records import Evaluation

__all__ = ["Objective"]

_LOWER = ("loss", "error", "mse", "mae", "mape", "crossentropy", "hinge", "divergence")
_HIGHER = ("accuracy", "acc", "auc", "precision", "recall", "f1", "iou", "r2", "similarity", "fbeta")
_TARGET = re.compile(r"(seconds|examples|updates):([^<>=\s]+)(>=|<=)([-+0-9.eE]+)")


@dataclass(frozen=True, kw_only=True)
class Objective:
    """How trials are compared.

    Attributes:
        name: as the user wrote it.
        metric: a key of the evaluations, such as `val_loss`.
        direction: `min` or `max`: which scores are better.
        better: `min` or `max`: which values of the metric are better.
        clock: `seconds`, `examples` or `updates` to reach the target; None where the metric itself is compared.
        target: the value to reach.
    """

    name: str
    metric: str
    direction: str
    better: str
    clock: str | None = None
    target: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Reads `val_loss`, `max:val_my_metric`, or `seconds:val_accuracy>=0.98` (also `examples:` and `updates:`).

        Raises:
            ConfigError: it is none of these, or it is not known whether more is better.
        """
        if found := _TARGET.fullmatch(text):
            clock, metric, sign, number = found.groups()
            try:
                target = float(number)
            except ValueError as error:
                raise ConfigError(f"objective {text!r}: {number!r} is no number") from error
            if not math.isfinite(target):
                raise ConfigError(f"objective {text!r}: the target must be finite")
            better = "max" if sign == ">=" else "min"
            return cls(name=text, metric=metric, direction="min", better=better, clock=clock, target=target)
        better, colon, metric = text.rpartition(":")
        if not colon:
            better = _better(metric)
        if better not in ("min", "max") or not metric or re.search(r"[<>=\s]", metric):
            raise ConfigError(
                f"objective {text!r}: give a metric (val_loss), min:metric or max:metric, or what it takes to reach a "
                "value (seconds:val_accuracy>=0.98)"
            )
        return cls(name=text, metric=metric, direction=better, better=better)

    @property
    def sign(self) -> float:
        """1 if lower scores are better, else -1."""
        return 1.0 if self.direction == "min" else -1.0

    def score(self, history: Sequence[Evaluation], slices: int) -> float | None:
        """What a trial is worth after some evaluations; None before the first one.

        A metric counts with its best value so far, as in Keras Tuner. A trial that has not reached its target counts as
        more than the whole budget, and the more the further it is from it.

        Args:
            history: the evaluations.
            slices: how many a whole budget has.

        Raises:
            ConfigError: the metric is not among those measured.
        """
        if not history:
            return None
        if self.metric not in history[-1].metrics:
            raise ConfigError(f"objective {self.name!r}: there is only {', '.join(sorted(history[-1].metrics))}")
        values = [evaluation.metrics[self.metric] for evaluation in history]
        best = max(values) if self.better == "max" else min(values)
        if self.clock is None:
            return best
        for evaluation, value in zip(history, values, strict=True):
            if value >= self.target if self.better == "max" else value <= self.target:
                return float(getattr(evaluation, self.clock))
        whole = float(getattr(history[-1], self.clock)) * slices / history[-1].slice
        distance = abs(best - self.target)
        return whole * (1.0 + distance / (1.0 + distance))

    def best(self, history: Sequence[Evaluation]) -> Evaluation:
        """The evaluation that counts for a training: the one that reached the target, else that of the best metric.

        Raises:
            ConfigError: the metric is not among those measured.
        """
        self.score(history, history[-1].slice)
        reached = next((each for each in history if self.reached([each])), None)
        sign = -1.0 if self.better == "max" else 1.0
        return reached or min(history, key=lambda each: sign * each.metrics[self.metric])

    def reached(self, history: Sequence[Evaluation]) -> bool:
        """Whether the target was reached, after which more training says nothing."""
        if self.clock is None or not history:
            return False
        value = history[-1].metrics.get(self.metric, math.nan)
        return value >= self.target if self.better == "max" else value <= self.target


def _better(metric: str) -> str:
    """Which values of a metric of that name are better; `""` where the name does not tell."""
    words = metric.removeprefix("val_").split("_")
    if any(word in _LOWER for word in words):
        return "min"
    return "max" if any(word in _HIGHER or word.startswith("top") for word in words) else ""
