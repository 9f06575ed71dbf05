"""Who watches a slice of a trial."""

from typing import Any

from tfmb.training.loop.hooks import CallbackHook
from tfmb.training.loop.reports import UpdatesReport
from tfmb.training.loop.throughput import Meter

__all__ = ["Exploded", "Watch"]

# A loss that is so many times the first update's will not come down in time: the rate is too high.
_EXPLODED = 100.0


class Exploded(Exception):  # noqa: N818 - it is a trial's fate, and not an error of anybody's
    """The loss is finite, but far above where it began.

    Attributes:
        update: after which it was.
    """

    def __init__(self, message: str, update: int) -> None:
        super().__init__(message)
        self.update = update


class Watch(CallbackHook):
    """Stops a slice whose time is over, and tells of a loss that explodes.

    Args:
        first: the loss of the trial's first update, where it was made before.

    Attributes:
        logs: of the slice.
        first: the loss of the trial's first update.
    """

    def __init__(self, first: float | None) -> None:
        self.logs: dict[str, Any] = {}
        self.first = first
        self.stop = False
        self._limit: float | None = None

    def limit(self, seconds: float | None, spent: float, meter: Meter) -> None:
        """Before a slice: it may train until the trial has spent so many seconds; None for no limit."""
        self.stop, self._limit, self._spent, self._meter = False, seconds, spent, meter

    def exploded(self, loss: float) -> bool:
        """Whether a loss is far above the first one."""
        return self.first is not None and loss > _EXPLODED * max(abs(self.first), 1e-3)

    def updates_made(self, report: UpdatesReport) -> None:
        """Looks at the losses, and at the clock."""
        if self.first is None and report.losses:
            self.first = report.losses[0]
        if report.losses and self.exploded(sum(report.losses) / len(report.losses)):
            raise Exploded(f"the loss rose from {self.first:.4g} to {report.losses[-1]:.4g}", report.update)
        if self._limit is not None and self._spent + self._meter.seconds >= self._limit:
            self.stop = True

    def epoch_ended(self, report: Any) -> None:
        """Keeps the logs."""
        self.logs = report.logs
