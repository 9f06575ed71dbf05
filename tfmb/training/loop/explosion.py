"""A loss that explodes: finite, but far above its start."""

from typing import Any

from tfmb.training.loop.hooks import CallbackHook
from tfmb.training.loop.reports import EpochReport, UpdatesReport

__all__ = ["Exploded", "Watch", "has_exploded"]

# A loss that is so many times the first one will not come down in time: the rate is too high.
_EXPLODED = 100.0


class Exploded(Exception):  # noqa: N818 - it is a run's fate, and not an error of anybody's
    """The loss is finite, but far above its start.

    Attributes:
        update: the number of the update after which it was.
    """

    def __init__(self, message: str, update: int) -> None:
        super().__init__(message)
        self.update = update


def has_exploded(loss: float, first: float) -> bool:
    """Whether a loss is far above the first one."""
    return loss > _EXPLODED * max(abs(first), 1e-3)


class Watch(CallbackHook):
    """Ends a training whose loss explodes, and keeps the logs.

    Args:
        first: the loss of the first update, where it was made before.

    Attributes:
        logs: of the last epoch.
        first: the loss of the first update; None before it.
    """

    def __init__(self, first: float | None = None) -> None:
        self.logs: dict[str, Any] = {}
        self.first = first
        self.stop = False

    def exploded(self, loss: float) -> bool:
        """Whether a loss is far above the first one."""
        return self.first is not None and has_exploded(loss, self.first)

    def updates_made(self, report: UpdatesReport) -> None:
        """Looks at the losses.

        Raises:
            Exploded: their mean is far above the first one.
        """
        if self.first is None and report.losses:
            self.first = report.losses[0]
        if report.losses and self.exploded(sum(report.losses) / len(report.losses)):
            raise Exploded(f"the loss rose from {self.first:.4g} to {report.losses[-1]:.4g}", report.update)

    def epoch_ended(self, report: EpochReport) -> None:
        """Keeps the logs."""
        self.logs = report.logs
