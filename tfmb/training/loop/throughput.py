"""The speed of a training: its examples by the time of their updates, without tracing and compiling."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfmb.training.loop.reports import EpochReport, UpdatesReport

__all__ = ["Meter"]


class Meter:
    """Adds up examples and the time of their updates.

    A call that traces or compiles something takes many times as long as its updates, so it is counted apart.

    Args:
        tracing_seconds: the time of tracing and compiling before.

    Attributes:
        examples: trained on since it was made.
        timed_examples: those of them that were trained on in `seconds`.
        seconds: of the calls that neither traced nor compiled.
        tracing_seconds: of the other calls, with the few updates that each of them made, and what came before them.
    """

    def __init__(self, tracing_seconds: float = 0.0) -> None:
        self.examples, self.timed_examples = 0, 0
        self.seconds, self.tracing_seconds = 0.0, tracing_seconds

    @property
    def examples_per_second(self) -> float | None:
        """The rate of the timed examples; None if there are none."""
        return self.timed_examples / max(self.seconds, 1e-9) if self.timed_examples else None

    def updates_made(self, report: "UpdatesReport") -> None:
        """Adds a report's examples and time."""
        self.examples += report.examples
        if report.traced:
            self.tracing_seconds += report.seconds
        else:
            self.timed_examples += report.examples
            self.seconds += report.seconds

    def epoch_ended(self, report: "EpochReport") -> None:
        """Does nothing."""
