"""The outer loop, on the host: epochs, calls of many updates each, and reports of what came out.

It owns the count of updates and nothing else. Weights belong to the optimizer, files to the actions.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tfmb.backend import tf
from tfmb.errors import ConfigError, DivergenceError
from tfmb.training.feeds import EpochBatches

__all__ = ["Action", "EpochReport", "Plan", "UpdatesReport", "add_up", "run"]

# A call lasts about this long at most, so that signals and progress are served in time.
_CALL_SECONDS = 0.5
_MOST_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to train.

    Attributes:
        epochs: the number of the epoch to stop before.
        initial_epoch: the number of the first epoch, counted from 0.
        log_every: updates between two reports of the running loss.
    """

    epochs: int
    initial_epoch: int = 0
    log_every: int = 100


@dataclass(frozen=True, kw_only=True)
class UpdatesReport:
    """What some updates in a row came to.

    Attributes:
        epoch: the epoch they belong to, from 0.
        step: the last one's number within the epoch, from 1.
        update: the last one's number over all, from 1.
        losses: each update's loss, in order.
        examples: the number of examples they took.
        learning_rate: that of the last one.
        seconds: how long they took.
    """

    epoch: int
    step: int
    update: int
    losses: tuple[float, ...]
    examples: int
    learning_rate: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What an epoch came to.

    Attributes:
        epoch: its number, from 0.
        update: the number of the last update, over all.
        logs: Keras's logs: loss and metrics, and those of the validation data with `val_` in front.
        examples: the number of examples trained on.
        seconds: the training time, without validation.
        learning_rate: that of the last update.
    """

    epoch: int
    update: int
    logs: dict[str, Any]
    examples: int
    seconds: float
    learning_rate: float


class Action(Protocol):
    """Something that watches: it gets reports and returns nothing."""

    def updates_made(self, report: UpdatesReport) -> None:
        """After each call of the training function."""

    def epoch_ended(self, report: EpochReport) -> None:
        """After each epoch and its validation."""


def add_up(sums: np.ndarray | None, reports: np.ndarray) -> np.ndarray:
    """Adds rows to a sum one by one, in float64: the same bits however many rows a call brings."""
    for row in reports.astype(np.float64):
        sums = row if sums is None else sums + row
    assert sums is not None
    return sums


def run(
    plan: Plan,
    batches: Callable[[int], EpochBatches],
    train: Callable[[Any, Any], tuple[Any, Any]],
    optimizer: Any,
    score: Callable[[np.ndarray], dict[str, Any]],
    validate: Callable[[int], dict[str, Any]],
    actions: Sequence[Action],
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Trains for the epochs of a plan.

    Args:
        plan: how long.
        batches: epoch -> its batches.
        train: `Steps.train`, or anything that takes (iterator, number of steps) and returns (reports, finite).
        optimizer: asked for its rate and count, never told.
        score: the sum of an epoch's reports -> its logs.
        validate: epoch -> validation logs, with their `val_` names; empty where there is nothing to do.
        actions: get every report, in order.
        clock: seconds; an argument so that tests need not wait.

    Returns:
        The number of updates made.

    Raises:
        DivergenceError: a loss or gradient was NaN or infinite; the weights are those before that update.
        ConfigError: an epoch had no batch.
    """
    made, steps_a_call, last_loss = 0, 1, None
    for epoch in range(plan.initial_epoch, plan.epochs):
        iterator, steps = batches(epoch)
        sums, step, trained = None, 0, 0.0
        learning_rate = _rate(optimizer)
        # The order is: save, draw the batch, step, report, evaluate. Saving comes before drawing, so that a
        # restored run draws the same batch again. Do not change it.
        while steps is None or step < steps:
            count = 1 if steps is None else min(steps_a_call, steps - step, plan.log_every - step % plan.log_every)
            first_update = int(optimizer.iterations.numpy())
            started = clock()
            try:
                reports, finite = train(iterator, tf.constant(count))
            except tf.errors.OutOfRangeError:
                break
            rows, finite = np.asarray(reports), bool(finite)
            seconds = clock() - started
            if not finite:
                last_loss = float(rows[-2, 0]) if len(rows) > 1 else last_loss
                raise _divergence(first_update + len(rows), _rate(optimizer), last_loss)
            sums = add_up(sums, rows)
            made, step, trained = made + count, step + count, trained + seconds
            learning_rate, last_loss = _rate(optimizer, before=1), float(rows[-1, 0])
            # The first call of all traces and compiles: it says nothing about how long a step takes.
            if made > count:
                steps_a_call = _fitting_steps(seconds / count)
            report = UpdatesReport(
                epoch=epoch,
                step=step,
                update=first_update + count,
                losses=tuple(float(loss) for loss in rows[:, 0]),
                examples=round(float(rows[:, 1].sum())),
                learning_rate=learning_rate,
                seconds=seconds,
            )
            for action in actions:
                action.updates_made(report)
        if sums is None:
            raise ConfigError(f"epoch {epoch + 1} has no batch: give a dataset with at least one (or repeat it)")
        logs = dict(sorted({**score(sums), **validate(epoch)}.items()))  # sorted, as in Keras
        ended = EpochReport(
            epoch=epoch,
            update=int(optimizer.iterations.numpy()),
            logs=logs,
            examples=round(float(sums[1])),
            seconds=trained,
            learning_rate=learning_rate,
        )
        for action in actions:
            action.epoch_ended(ended)
    return made


def _fitting_steps(seconds_a_step: float) -> int:
    return max(1, min(_MOST_STEPS, math.floor(_CALL_SECONDS / max(seconds_a_step, 1e-6))))


def _rate(optimizer: Any, before: int = 0) -> float:
    """The rate of the next update, or of one `before` it."""
    return float(optimizer.rate_at(tf.maximum(optimizer.iterations - before, 0)))


def _divergence(update: int, learning_rate: float, last_loss: float | None) -> DivergenceError:
    known = "" if last_loss is None else f" (the loss before it was {last_loss:.6g})"
    return DivergenceError(
        f"update {update} at learning rate {learning_rate:g}: the loss or a gradient is NaN or infinite{known}; "
        "the weights are those before it: try a lower learning rate",
        update=update,
        learning_rate=learning_rate,
        last_loss=last_loss,
    )
