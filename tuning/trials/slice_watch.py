"""The watch over a slice of a trial."""

from tfmb.training.loop.explosion import Watch
from tfmb.training.loop.reports import Meter, UpdatesReport

from .. import signs

__all__ = ["SliceWatch"]


class SliceWatch(Watch):
    """Stops a slice whose time is over, too."""

    _limit: float | None = None

    @property
    def stop_scoring(self) -> bool:  # type: ignore[override]  # a plain attribute of `Hooks`, only read
        """It does not stop scoring; that it is asked is a sign of life."""
        signs.alive()
        return False

    def limit(self, seconds: float | None, spent: float, meter: Meter) -> None:
        """Before a slice: it may train until the trial has spent so many seconds; None for no limit."""
        self.stop, self._limit, self._spent, self._meter = False, seconds, spent, meter

    def updates_made(self, report: UpdatesReport) -> None:
        """Looks at the losses, and at the clock."""
        signs.alive()
        super().updates_made(report)
        if self._limit is not None and self._spent + self._meter.seconds >= self._limit:
            self.stop = True
