"""The reports that the loop gives to its loggers."""

from dataclasses import dataclass
from typing import Any

__all__ = ["EpochReport", "UpdatesReport"]


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
