"""The target of a training, such as `val_accuracy>=0.97`."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tfmb.errors import ConfigError

__all__ = ["Look", "Target", "crossing"]

_TARGET = re.compile(r"\s*([A-Za-z_][\w ]*?)\s*(>=|<=)\s*(\S+)\s*")


@dataclass(frozen=True, kw_only=True)
class Look:
    """A training, seen between two updates.

    Attributes:
        updates: made so far.
        examples: trained on so far.
        seconds: of training, without looks, tracing and compiling.
        value: of the target's metric; NaN if the training had diverged.
    """

    updates: int
    examples: int
    seconds: float
    value: float


@dataclass(frozen=True, kw_only=True)
class Target:
    """A value of a metric that a training is to reach.

    Attributes:
        metric: `loss` is the mean of the training batches since the last look, `val_...` the validation split's.
        value: to reach.
        rises: whether the metric must rise to it.
    """

    metric: str
    value: float
    rises: bool

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Reads `METRIC>=VALUE` or `METRIC<=VALUE`.

        Raises:
            ConfigError: it is neither.
        """
        found = _TARGET.fullmatch(text) if isinstance(text, str) else None
        try:
            value = float(found.group(3)) if found else math.nan
        except ValueError:
            value = math.nan
        if found is None or not math.isfinite(value):
            raise ConfigError(f"target {text!r}: give METRIC>=VALUE or METRIC<=VALUE, such as val_accuracy>=0.97")
        return cls(metric=found.group(1), value=value, rises=found.group(2) == ">=")

    def __str__(self) -> str:
        return f"{self.metric}{'>=' if self.rises else '<='}{self.value:g}"

    def reached(self, value: float) -> bool:
        """Whether a value of the metric reaches the target."""
        return value >= self.value if self.rises else value <= self.value

    def short_of(self, value: float) -> float:
        """Returns the distance of a value from the target: 0 if it is reached, infinity if it is not finite."""
        if not math.isfinite(value):
            return math.inf
        return max(0.0, self.value - value if self.rises else value - self.value)


def crossing(looks: Sequence[Look], target: Target) -> float | None:
    """Updates to the first look that reached the target, on a straight line from the one before; None for none."""
    before: Look | None = None
    for look in looks:
        if target.reached(look.value):
            if before is None or look.value == before.value:
                return float(look.updates)
            share = (target.value - before.value) / (look.value - before.value)
            return before.updates + min(max(share, 0.0), 1.0) * (look.updates - before.updates)
        before = look
    return None
