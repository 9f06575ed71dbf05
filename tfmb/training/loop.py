"""The outer loop, on the host: epochs, calls of many updates each, and reports of what came out.

It owns the count of updates and nothing else. Weights belong to the optimizer, files to the actions.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from tfmb.backend import tf
from tfmb.errors import ConfigError, DivergenceError
from tfmb.optimizers.schedules import Plateau
from tfmb.training.calls import begins
from tfmb.training.feeds import EpochBatches
from tfmb.training.meter import Meter

__all__ = ["Action", "EpochReport", "Keeper", "Plan", "Position", "UpdatesReport", "Watcher", "add_up", "run"]

# A call lasts about this long at most, so that signals and progress are served in time.
_CALL_SECONDS = 0.5
_MOST_STEPS = 100
# More updates in a row that are not finite than this do not come of a batch.
_MOST_SKIPPED = 10


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to train.

    Attributes:
        epochs: the number of the epoch to stop before.
        initial_epoch: the number of the first epoch, counted from 0.
        log_every: updates between two reports of the running loss.
        plateau: lowers the rate when a score stands still, or None.
        steps_a_call: updates a call of the training function; None for as many as take half a second. Several workers
            must make the same calls: TensorFlow names a collective by its iteration within the call.
        on_divergence: what to do about a loss or gradient that is not finite, whose update is never made: `"skip"` the
            batch, or raise (`"stop"`, and `"restore"`, where the caller goes back to a checkpoint).
    """

    epochs: int
    initial_epoch: int = 0
    log_every: int = 100
    plateau: Plateau | None = None
    steps_a_call: int | None = None
    on_divergence: str = "stop"


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
        traced: whether something was traced or compiled for them, which `seconds` has in it then.
        clipped: how many of them had gradients clipped.
        skipped: how many were not made, because float16 overflowed at the loss scale of the time.
        noise: each update's estimates of (tr(Sigma), |G|^2), where they are measured: see `noise_scale`.
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
    """What an epoch came to.

    Attributes:
        epoch: its number, from 0.
        update: the number of the last update, over all.
        logs: Keras's logs: loss and metrics, and those of the validation data with `val_` in front.
        examples: the number of examples trained on.
        timed_examples: those of them that were trained on in `seconds`.
        seconds: the training time, without validation, and without the calls that traced or compiled.
        tracing_seconds: those calls' time.
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


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where the loop stands, before it draws a batch.

    Attributes:
        epoch: from 0.
        step: batches drawn in this epoch.
        drawn: batches drawn in all.
        sums: the sum of the epoch's reports so far; None at its start.
        last_loss: of the last update made, or None.
        waiting: the plateau's state.
        skipped: updates that were not made because they were not finite.
        restored: how often the run went back to a checkpoint.
        ended: whether nothing is left to do.
    """

    epoch: int = 0
    step: int = 0
    drawn: int = 0
    sums: tuple[float, ...] | None = None
    last_loss: float | None = None
    waiting: tuple[float, int, int] | None = None
    skipped: int = 0
    restored: int = 0
    ended: bool = False


class Keeper:
    """Saves the run, and may end it, at the one place where that is right. This one does nothing."""

    def visit(self, position: Position) -> None:
        """Before a batch is drawn."""

    def most(self, position: Position) -> int | None:
        """How many batches may be drawn before the next visit; None for any number."""

    def scored(self, logs: dict[str, Any], drawn: int) -> None:
        """After an epoch and its validation, when so many batches were drawn in all."""

    def hold(self) -> Callable[[], None]:
        """Takes down the state of training; what is returned puts it back."""
        return lambda: None


class Action(Protocol):
    """Something that watches: it gets reports and returns nothing."""

    def updates_made(self, report: UpdatesReport) -> None:
        """After each call of the training function."""

    def epoch_ended(self, report: EpochReport) -> None:
        """After each epoch and its validation."""


class Watcher:
    """Sees the run as `fit` shows it to callbacks; the one thing that may stop it. This one does nothing.

    Attributes:
        each_batch: whether it must see every batch, so that a call is no longer than `steps_between_looks`.
        steps_between_looks: the batches between its looks.
        stop: whether to stop.
        first_epoch: the number of the epoch that a callback wants to begin with, once training began; or None.
    """

    each_batch = False
    steps_between_looks = 1
    stop = False
    first_epoch: int | None = None

    def attach(self, loss_scale: Any) -> None:
        """Before all else: the loss scale that is used, or None."""

    def train_begin(self) -> None:
        """Before the first epoch."""

    def epoch_begin(self, epoch: int) -> None:
        """Before an epoch."""

    def batch_begin(self, step: int) -> None:
        """Before a batch, or the first of some, where `each_batch`."""

    def batch_end(self, step: int, logs: dict[str, Any]) -> None:
        """After a batch, or the last of some, where `each_batch`."""

    def epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """After an epoch; it may add to the logs."""

    def train_end(self, logs: dict[str, Any] | None) -> None:
        """After the last epoch."""


def add_up(sums: Sequence[float] | None, reports: np.ndarray) -> tuple[float, ...] | None:
    """Adds rows to a sum one by one, in float64: the same bits however many rows a call brings."""
    total = None if sums is None else np.array(sums)
    for row in reports.astype(np.float64):
        total = row if total is None else total + row
    return None if total is None else tuple(total.tolist())


def run(
    plan: Plan,
    batches: Callable[[int], EpochBatches],
    train: Callable[[Any, Any], tuple[Any, Any]],
    optimizer: Any,
    score: Callable[[np.ndarray], dict[str, Any]],
    validate: Callable[[int], dict[str, Any]],
    actions: Sequence[Action],
    clock: Callable[[], float] = time.perf_counter,
    watcher: Any = None,
    finish: Callable[[], None] = lambda: None,
    keeper: Keeper | None = None,
    start: Position | None = None,
    noise: bool = False,
    traces: Callable[[], int] = lambda: 0,
    tracing_seconds: float = 0.0,
    begin: Callable[[], None] = lambda: None,
) -> Position:
    """Trains for the epochs of a plan.

    Args:
        plan: how long.
        batches: epoch -> its batches.
        train: `Steps.train`, or anything that takes (iterator, number of steps) and returns (reports, finite).
        optimizer: asked for its rate and count; told a new rate only where the plan's plateau gives one.
        score: the sum of an epoch's reports -> its logs.
        validate: epoch -> validation logs, with their `val_` names; empty where there is nothing to do.
        actions: get every report, in order.
        clock: seconds; an argument so that tests need not wait.
        watcher: a `Watcher`, or what is used like one.
        finish: called after the last epoch, before the watcher's `train_end`; not for a run that had ended.
        keeper: a `Keeper`, or what is used like one.
        start: where to go on; None for the beginning. `batches` must yield what comes next there.
        noise: whether the reports tell of the noise in gradients.
        traces: how often something was traced or compiled so far.
        tracing_seconds: what that took before the first epoch, which tells of it.
        begin: called before each epoch that is not gone on with.

    Returns:
        Where it ended.

    Raises:
        DivergenceError: a loss or gradient was NaN or infinite; the weights are those before that update.
        ConfigError: an epoch had no batch.
    """
    watcher, keeper = watcher or Watcher(), keeper or Keeper()
    at = start or Position(epoch=plan.initial_epoch, waiting=plan.plateau.start() if plan.plateau else None)
    steps_a_call, calls, in_a_row = plan.steps_a_call or 1, 0, 0
    logs: dict[str, Any] | None = None
    begins()
    put_back = None if start is None or start.ended else keeper.hold()
    watcher.train_begin()
    at = replace(at, epoch=max(at.epoch, watcher.first_epoch or 0))
    for epoch in range(at.epoch, at.epoch if at.ended else plan.epochs):
        if not at.step:
            begin()
        watcher.epoch_begin(epoch)
        if put_back is not None and start is not None and epoch == start.epoch:
            put_back()  # the epoch had begun before the state was saved: what callbacks did then was done
        put_back = None
        iterator, steps, most = batches(epoch)
        meter, learning_rate = Meter(tracing_seconds), _rate(optimizer)
        tracing_seconds, shown = 0.0, 0
        # The order is: save, draw the batch, step, report, evaluate. Saving comes before drawing, so that a
        # restored run draws the same batch again. Do not change it.
        while (steps is None or at.step < steps) and (most is None or at.step < most):
            keeper.visit(at)
            count = min(steps_a_call, plan.log_every - at.step % plan.log_every, keeper.most(at) or steps_a_call)
            count = 1 if steps is None else min(count, steps - at.step)
            if watcher.each_batch:
                count = min(watcher.steps_between_looks - shown, count if steps is None else steps - at.step)
                if not shown:
                    watcher.batch_begin(at.step)
            first_update = int(optimizer.iterations.numpy())
            traced, started = traces(), clock()
            try:
                reports, finite = train(iterator, tf.constant(count))
            except tf.errors.OutOfRangeError:
                break
            rows, finite = np.asarray(reports), bool(finite)
            seconds = clock() - started
            drawn, last_loss = len(rows), at.last_loss
            if not finite:
                rows = rows[:-1]
                in_a_row = 1 if len(rows) else in_a_row + 1
                last_loss = float(rows[-1, 0]) if len(rows) else last_loss
                if plan.on_divergence != "skip" or in_a_row > _MOST_SKIPPED:
                    raise _divergence(first_update + drawn, _rate(optimizer), last_loss)
            else:
                in_a_row = 0
            last_loss = float(rows[-1, 0]) if len(rows) else last_loss
            at = replace(
                at,
                step=at.step + drawn,
                drawn=at.drawn + drawn,
                sums=add_up(at.sums, rows),
                last_loss=last_loss,
                skipped=at.skipped + (not finite),
            )
            learning_rate = _rate(optimizer, before=1)
            # The first call of all traces and compiles: it says nothing about how long a step takes.
            calls += 1
            if calls > 1 and plan.steps_a_call is None:
                steps_a_call = _fitting_steps(seconds / drawn)
            report = UpdatesReport(
                epoch=epoch,
                step=at.step,
                update=int(optimizer.iterations.numpy()),
                losses=tuple(float(loss) for loss in rows[:, 0]),
                examples=round(float(rows[:, 1].sum())),
                learning_rate=learning_rate,
                seconds=seconds,
                traced=traces() != traced,
                clipped=round(float(rows[:, -2].sum())),
                skipped=drawn - round(float(rows[:, -1].sum())),
                noise=tuple((float(row[-4]), float(row[-3])) for row in rows if row[-1]) if noise else (),
            )
            for action in (meter, *actions):
                action.updates_made(report)
            shown = (shown + drawn) % watcher.steps_between_looks
            if watcher.each_batch and not shown and at.sums is not None:
                watcher.batch_end(at.step - 1, score(np.array(at.sums)))
            if watcher.stop:
                break
        if watcher.each_batch and shown and at.sums is not None:
            # Keras names the last batch that there might have been.
            watcher.batch_end(at.step - shown + watcher.steps_between_looks - 1, score(np.array(at.sums)))
        if at.sums is None and at.step:
            raise _divergence(int(optimizer.iterations.numpy()) + 1, _rate(optimizer), at.last_loss)
        if at.sums is None:
            raise ConfigError(f"epoch {epoch + 1} has no batch: give a dataset with at least one (or repeat it)")
        sums = np.array(at.sums)
        logs = dict(sorted({**score(sums), **validate(epoch)}.items()))  # sorted, as in Keras
        watcher.epoch_end(epoch, logs)
        waiting = at.waiting
        if plan.plateau and waiting:
            waiting = _wait(plan.plateau, waiting, logs, optimizer)
        ended = EpochReport(
            epoch=epoch,
            update=int(optimizer.iterations.numpy()),
            logs=logs,
            examples=round(float(sums[1])),
            timed_examples=meter.timed_examples,
            seconds=meter.seconds,
            tracing_seconds=meter.tracing_seconds,
            learning_rate=learning_rate,
        )
        for action in actions:
            action.epoch_ended(ended)
        keeper.scored(logs, at.drawn)
        at = replace(at, epoch=epoch + 1, step=0, sums=None, waiting=waiting)
        if watcher.stop:
            break
    if not at.ended:
        finish()
    watcher.train_end(logs)
    return replace(at, ended=True)


def _wait(plateau: Plateau, state: tuple[float, int, int], logs: dict[str, Any], optimizer: Any) -> Any:
    """One evaluation of the plateau; assigns the rate it gives."""
    if plateau.monitor not in logs:
        raise ConfigError(f"the plateau watches {plateau.monitor!r}, but the logs have {', '.join(logs)}")
    rate = _rate(optimizer)
    state, new = plateau.step(state, float(logs[plateau.monitor]), rate)
    if new != rate:
        optimizer.learning_rate = new
    return state


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
