"""The interfaces that the loop calls: loggers, Keras's callbacks, checkpoints, validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tfmb.training.loop.plan import LoopState
from tfmb.training.loop.reports import EpochReport, UpdatesReport

__all__ = ["CallbackHook", "CheckpointHook", "Hooks", "Logger"]


class Logger(Protocol):
    """Gets every report and returns nothing."""

    def updates_made(self, report: UpdatesReport) -> None:
        """Called after each call of the training function."""

    def epoch_ended(self, report: EpochReport) -> None:
        """Called after each epoch and its validation."""


class CheckpointHook:
    """Saves the run, and may end it, at the one right place. This base class does nothing."""

    def visit(self, state: LoopState) -> None:
        """Called before a batch is drawn."""

    def most(self, state: LoopState) -> int | None:
        """Returns the number of batches that may be drawn before the next visit; None for any number."""

    def scored(self, logs: dict[str, Any], drawn: int) -> None:
        """Called after an epoch and its validation, with the number of batches drawn in all."""

    def hold(self) -> Callable[[], None]:
        """Takes down the state of training; the returned function puts it back."""
        return lambda: None


class CallbackHook:
    """Sees the run as `fit` shows it to callbacks, and alone may stop it. This base class does nothing.

    Attributes:
        each_batch: whether it must see every batch, so that a call is no longer than `steps_between_looks`.
        each_test_batch: the same for scoring.
        steps_between_looks: the batches between its looks.
        stop: whether to stop.
        stop_scoring: whether to stop scoring.
        first_epoch: the number of the epoch that a callback wants to begin with, once training began; or None.
    """

    each_batch = False
    each_test_batch = False
    steps_between_looks = 1
    stop = False
    stop_scoring = False
    first_epoch: int | None = None

    def attach(self, loss_scale: Any) -> None:
        """Called before all else, with the loss scale that is used, or None."""

    def train_begin(self) -> None:
        """Called before the first epoch."""

    def epoch_begin(self, epoch: int) -> None:
        """Called before an epoch."""

    def test_begin(self) -> None:
        """Called before scoring."""

    def call(self, hook: str, *arguments: Any) -> None:
        """Called where Keras calls another hook of its callbacks, with the hook's name and arguments.

        `on_epoch_end` may add to the logs. Batch hooks are called if `each_batch`, or `each_test_batch` in scoring.
        They are called for the first and the last batch between two looks.
        """

    def called(self, scored: Callable[..., dict[str, Any]], score: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns the result of the model's own `evaluate`, which calls `score`: see `scoring.Validation`."""
        return scored(score, None)


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """All that the loop calls besides the step and the data.

    Attributes:
        loggers: get every report, in order.
        callbacks: a `CallbackHook`, or an object that is used like one.
        checkpoints: save the run, and may end it.
        validate: epoch (from 0) -> validation logs with their `val_` names; empty if there is nothing to do.
        finish: called after the last epoch, before the callbacks' `train_end`; not for a run that had ended.
    """

    loggers: Sequence[Logger] = ()
    callbacks: Any = field(default_factory=CallbackHook)
    checkpoints: CheckpointHook = field(default_factory=CheckpointHook)
    validate: Callable[[int], dict[str, Any]] = lambda epoch: {}
    finish: Callable[[], None] = lambda: None
