"""The watchers of a short training: its losses, the time of its updates, and whether it explodes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmb.optimizers import Optimizer
from tfmb.training.loop.explosion import Exploded, Watch, has_exploded
from tfmb.training.loop.hooks import CallbackHook
from tfmb.training.loop.reports import UpdatesReport

__all__ = ["Ramp", "TimedWatch"]

_CALL_SECONDS, _MOST_STEPS = 0.5, 100


class TimedWatch(Watch):
    """Keeps the losses since the last look, and the time of an update too.

    Args:
        most_seconds: it stops the training after this many.

    Attributes:
        updates: made so far.
        seconds: of training so far, without the first call, which traces.
    """

    def __init__(self, most_seconds: float = math.inf) -> None:
        super().__init__()
        self.updates, self.seconds = 0, 0.0
        self._most_seconds = most_seconds
        self._losses: list[float] = []
        self._times: list[tuple[float, int]] = []

    @property
    def step_seconds(self) -> float | None:
        """The median over the calls without the first one, which traces; weighed by their updates."""
        return _median(self._times[1:])

    @property
    def seconds_an_update(self) -> float:
        """The median seconds of an update over all calls."""
        found = _median(self._times)
        assert found is not None
        return found

    @property
    def steps_a_call(self) -> int | None:
        """The number of updates that take a while; None if the time of one is unknown."""
        seconds = self.step_seconds
        return None if seconds is None else max(1, min(_MOST_STEPS, int(_CALL_SECONDS / max(seconds, 1e-6))))

    def mean_loss(self) -> float:
        """Returns the mean loss of the updates since the last request; NaN if there are none."""
        losses, self._losses = self._losses, []
        return float(np.mean(losses)) if losses else math.nan

    def updates_made(self, report: UpdatesReport) -> None:
        """Keeps losses and times."""
        self._losses += report.losses
        self.updates = report.update
        self.seconds += report.seconds if self._times else 0.0
        self.stop = self.seconds >= self._most_seconds
        if report.losses:
            self._times.append((report.seconds, len(report.losses)))
        super().updates_made(report)


class Ramp(CallbackHook):
    """Sets the next update's rate, and keeps the losses."""

    def __init__(self, optimizer: Optimizer, learning_rates: Sequence[float]) -> None:
        self._optimizer, self._rates = optimizer, learning_rates
        self.losses: list[float] = []

    def updates_made(self, report: UpdatesReport) -> None:
        """Sets the next rate."""
        self.losses += report.losses
        if len(self.losses) < len(self._rates):
            self._optimizer.learning_rate = self._rates[len(self.losses)]
        if has_exploded(self.losses[-1], self.losses[0]):
            raise Exploded("the loss of a ramp exploded", report.update)

    def epoch_ended(self, report: Any) -> None:
        """Does nothing."""


def _median(calls: Sequence[tuple[float, int]]) -> float | None:
    """Returns the median seconds of an update, from (seconds, updates) of calls."""
    if not calls:
        return None
    return float(np.median(np.repeat([seconds / count for seconds, count in calls], [count for _, count in calls])))
