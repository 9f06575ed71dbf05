"""The loop itself. It owns the position and nothing else: weights belong to the step, files to the hooks."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from tfmb.backend import tf
from tfmb.errors import ConfigError
from tfmb.optimizers.schedules import Plateau
from tfmb.training.input.pipeline import EpochBatches
from tfmb.training.keras_api.method_calls import begins
from tfmb.training.loop.call_size import BatchLooks, CallSize
from tfmb.training.loop.divergence import Divergence, rate_of
from tfmb.training.loop.hooks import Hooks
from tfmb.training.loop.plan import LoopState, TrainingPlan
from tfmb.training.loop.reports import EpochReport, Meter, UpdatesReport
from tfmb.training.step.report import ReportView
from tfmb.types import Dataset

__all__ = ["TrainedStep", "run"]


class TrainedStep(Protocol):
    """The step that the loop trains: see `trainer.train`.

    Attributes:
        optimizer: gives its rate and count; gets a new rate only if the plan's plateau gives one.
        tracing_seconds: the time of tracing and compiling before the first epoch, whose report includes it.
    """

    optimizer: Any
    tracing_seconds: float

    def begin(self) -> None:
        """Called before each epoch that is begun at its start: metrics begin anew."""

    def train(self, batches: Dataset, count: int) -> tuple[ReportView, bool]:
        """Makes at most `count` updates; returns `(reports [steps, width], whether the last one is finite)`.

        Raises:
            tf.errors.OutOfRangeError: there is no batch left.
        """

    def logs(self, sums: np.ndarray) -> dict[str, Any]:
        """Returns Keras's logs for the sum of an epoch's reports."""

    def batch_logs(self, sums: np.ndarray) -> dict[str, Any]:
        """Returns the logs that batch hooks see, from the sum of the reports so far."""

    def view(self, values: np.ndarray) -> ReportView:
        """Reports, or a sum of reports, by the names of their entries."""

    @property
    def traces(self) -> int:
        """The number of times that something was traced or compiled so far."""


def run(
    step: TrainedStep,
    batches: Callable[[int], EpochBatches],
    plan: TrainingPlan,
    hooks: Hooks,
    start: LoopState | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> LoopState:
    """Trains for the epochs of a plan; returns where it ended.

    Args:
        step: makes updates.
        batches: epoch -> its batches.
        plan: the length of the training.
        hooks: all that is called on the way.
        start: where to go on; None for the beginning. `batches` must yield what comes next there.
        clock: seconds; an argument so that tests need not wait.

    Raises:
        DivergenceError: a loss or gradient was NaN or infinite; the weights are those before that update.
        ConfigError: an epoch had no batch.
    """
    callbacks, checkpoints = hooks.callbacks, hooks.checkpoints
    state, logs = start or LoopState.at_start(plan), None
    calls, divergence = CallSize(plan, hooks), Divergence(plan, step.optimizer)
    begins()
    put_back = None if start is None or start.ended else checkpoints.hold()
    callbacks.train_begin()
    state = replace(state, epoch=max(state.epoch, callbacks.first_epoch or 0))
    for epoch in range(state.epoch, state.epoch if state.ended else plan.epochs):
        if not state.step:
            step.begin()
        callbacks.epoch_begin(epoch)
        if put_back is not None and start is not None and epoch == start.epoch:
            put_back()  # the epoch had begun before the state was saved: what callbacks did then was done
        put_back = None
        drawn_from = batches(epoch)
        told, looks = _Told(epoch, step, hooks), BatchLooks(callbacks, lambda at: step.batch_logs(np.array(at.sums)))
        # The order is: save, draw the batch, step, report, evaluate. Saving comes before drawing, so that a
        # restored run draws the same batch again. Do not change it.
        while drawn_from.has_more(state.step):
            checkpoints.visit(state)
            count = calls.next(state, drawn_from.steps, looks.until_next)
            looks.before(state)
            try:
                call = _timed(step, clock, drawn_from.iterator, count)
            except tf.errors.OutOfRangeError:
                break
            divergence.check(call.finite, call.made.loss, state, call.first_update)
            state = state.after(call.made.values, call.made.loss, call.drawn)
            calls.took(call.seconds, call.drawn)
            told.updates(call, state)
            looks.after(state, call.drawn)
            if callbacks.stop:
                break
        looks.end(state)
        divergence.check_epoch(state)
        if state.sums is None:
            raise ConfigError(f"epoch {epoch + 1} has no batch: give a dataset with at least one (or repeat it)")
        sums = np.array(state.sums)
        logs = dict(sorted({**step.logs(sums), **hooks.validate(epoch)}.items()))  # sorted, as in Keras
        callbacks.call("on_epoch_end", epoch, logs)
        waiting = _waited(plan.plateau, state.waiting, logs, step.optimizer)
        told.epoch(logs, step.view(sums))
        checkpoints.scored(logs, state.drawn)
        state = state.next_epoch(waiting)
        if callbacks.stop:
            break
    if not state.ended:
        hooks.finish()
    callbacks.call("on_train_end", logs)
    return replace(state, ended=True)


class _Call:
    """The result of a call."""

    def __init__(self, reports: ReportView, finite: bool, first_update: int, seconds: float, traced: bool) -> None:
        self.finite, self.first_update, self.seconds, self.traced = finite, first_update, seconds, traced
        self.drawn = len(reports.values)
        # The update of a batch that was not finite was not made: its report counts nowhere.
        self.made = reports if finite else ReportView(reports.values[:-1], reports.has_noise)


def _timed(step: TrainedStep, clock: Callable[[], float], iterator: Dataset, count: int) -> _Call:
    """Calls the step, by the clock: see `TrainedStep.train`."""
    first_update = int(step.optimizer.iterations.numpy())
    traces, started = step.traces, clock()
    reports, finite = step.train(iterator, count)
    return _Call(reports, finite, first_update, clock() - started, step.traces != traces)


class _Told:
    """Tells the loggers of one epoch."""

    def __init__(self, epoch: int, step: TrainedStep, hooks: Hooks) -> None:
        self._epoch, self._step, self._loggers = epoch, step, hooks.loggers
        self._meter, self._rate = Meter(step.tracing_seconds), rate_of(step.optimizer)
        step.tracing_seconds = 0.0

    def updates(self, call: _Call, state: LoopState) -> None:
        """Reports a call."""
        made, self._rate = call.made, rate_of(self._step.optimizer, before=1)
        report = UpdatesReport(
            epoch=self._epoch,
            step=state.step,
            update=int(self._step.optimizer.iterations.numpy()),
            losses=tuple(float(loss) for loss in made.loss),
            examples=round(float(made.examples.sum())),
            learning_rate=self._rate,
            seconds=call.seconds,
            traced=call.traced,
            clipped=round(float(made.clipped.sum())),
            skipped=call.drawn - round(float(made.applied.sum())),
            noise=tuple((float(n), float(g)) for n, g in made.noise[made.applied != 0]) if made.has_noise else (),
        )
        for logger in (self._meter, *self._loggers):
            logger.updates_made(report)

    def epoch(self, logs: dict[str, Any], sums: ReportView) -> None:
        """Reports an epoch."""
        report = EpochReport(
            epoch=self._epoch,
            update=int(self._step.optimizer.iterations.numpy()),
            logs=logs,
            examples=round(float(sums.examples)),
            timed_examples=self._meter.timed_examples,
            seconds=self._meter.seconds,
            tracing_seconds=self._meter.tracing_seconds,
            learning_rate=self._rate,
        )
        for logger in self._loggers:
            logger.epoch_ended(report)


def _waited(plateau: Plateau | None, state: Any, logs: dict[str, Any], optimizer: Any) -> Any:
    """Makes one evaluation of the plateau, which may assign a new rate; returns the plateau's state."""
    if plateau is None or not state:
        return state
    if plateau.monitor not in logs:
        raise ConfigError(f"the plateau watches {plateau.monitor!r}, but the logs have {', '.join(logs)}")
    rate = rate_of(optimizer)
    state, new = plateau.step(state, float(logs[plateau.monitor]), rate)
    if new != rate:
        optimizer.learning_rate = new
    return state
