"""The reports that the loop gives to its loggers, and the speed of a training that they tell."""

from dataclasses import dataclass
from typing import Any

__all__ = ["EpochReport", "Meter", "UpdatesReport"]


@dataclass(frozen=True, kw_only=True)
class UpdatesReport:
    """The report of a call's updates.

    Attributes:
        epoch: the epoch they belong to, from 0.
        step: the last one's number within the epoch, from 1.
        update: the last one's number over all, from 1.
        losses: each update's loss, in order.
        examples: the number of examples they took.
        learning_rate: that of the last one.
        seconds: the time that they took.
        traced: whether something was traced or compiled for them; `seconds` includes it then.
        clipped: the number of them whose gradients were clipped.
        skipped: the number of updates not made, because float16 overflowed at the loss scale of the time.
        noise: each update's estimates of (tr(Sigma), |G|^2), if they are measured: see `noise_scale`.
    """

    epoch: int
    step: int
    update: int
    losses: tuple[float, ...]
    examples: int
    learning_rate: float
    seconds: float
    traced: bool = False
    clipped: int = 0
    skipped: int = 0
    noise: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """The report of an epoch.

    Attributes:
        epoch: its number, from 0.
        update: the number of the last update, over all.
        logs: Keras's logs: loss and metrics, and those of the validation data with `val_` in front.
        examples: the number of examples trained on.
        timed_examples: those of them that were trained on in `seconds`.
        seconds: the training time, without validation, and without the calls that traced or compiled.
        tracing_seconds: the time of those calls.
        learning_rate: that of the last update.
    """

    epoch: int
    update: int
    logs: dict[str, Any]
    examples: int
    timed_examples: int
    seconds: float
    tracing_seconds: float = 0.0
    learning_rate: float


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

    def updates_made(self, report: UpdatesReport) -> None:
        """Adds a report's examples and time."""
        self.examples += report.examples
        if report.traced:
            self.tracing_seconds += report.seconds
        else:
            self.timed_examples += report.examples
            self.seconds += report.seconds

    def epoch_ended(self, report: EpochReport) -> None:
        """Does nothing."""
