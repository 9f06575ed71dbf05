"""Trains a placed model: puts the step, the batches and the watchers into the loop; goes back to checkpoints."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tfmb.backend import tf
from tfmb.data.records import telling_what_cannot_be_read
from tfmb.distribution.consensus import check_same
from tfmb.errors import ConfigError, DivergenceError
from tfmb.optimizers import Optimizer
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.runs.run_dir import RAW_WEIGHTS_FILE, save_weights
from tfmb.training.checkpoint.checkpointer import Checkpointer
from tfmb.training.execution.step_cache import build, check_jit_scope, steps_for
from tfmb.training.input.array_pipeline import RowsOfBatches
from tfmb.training.input.pipeline import EpochBatches, InputPipeline
from tfmb.training.keras_api.compile_args import compiled_with
from tfmb.training.loop.hooks import CheckpointHook, Hooks
from tfmb.training.loop.plan import LoopState, TrainingPlan
from tfmb.training.loop.run import run
from tfmb.training.scoring import Validation, leaving
from tfmb.training.step.model_state import warn_of_local_layers
from tfmb.training.step.noise_scale import noise_of_epoch
from tfmb.training.step.report import ReportView
from tfmb.training.step.spec import PlacedModel, StepSpec
from tfmb.training.step.train_step import Steps
from tfmb.types import Dataset

__all__ = ["recall", "train"]

_MAX_RESTORED = 3


def train(
    placed: PlacedModel,
    spec: StepSpec,
    pipeline: InputPipeline,
    plan: TrainingPlan,
    hooks: Hooks,
    *,
    validation: Validation | None = None,
    checkpointer: Checkpointer | None = None,
    resume: bool = False,
    tracing_seconds: float = 0.0,
) -> LoopState:
    """Trains a placed model; returns where it ended.

    Args:
        placed: the model, with its optimizer.
        spec: the options of the step.
        pipeline: the training batches, as `placed_for` gives them.
        plan: the length of the training.
        hooks: the loggers and callbacks, which take no part in the training; callbacks see scoring too.
        validation: the validation at the end of epochs, or None.
        checkpointer: saves the run; None for no checkpoints.
        resume: whether to go on from its newest checkpoint, if it has one.
        tracing_seconds: the time of tracing and compiling before.

    Raises:
        DivergenceError: see `run`; with `plan.on_divergence="restore"` after several tries at lower rates.
        PreemptedError: the checkpointer was asked to end.
        ConfigError: the model, loss, metrics and data do not fit together.
    """
    _refuse(placed, spec)
    check_jit_scope(placed, spec, pipeline)
    if spec.partition.num_microbatches > 1 and not isinstance(placed.optimizer, OwnStepOptimizer):
        warn_of_local_layers(placed.model, spec.partition)
    build(placed)
    steps = steps_for(placed, spec)
    steps.prepare(pipeline.spec())
    if checkpointer is not None and (unseen := steps.update.unseen):
        warnings.warn(
            f"the model's step uses {' and '.join(unseen)}, whose state no checkpoint has: a run that is resumed "
            "goes on, but not to the same bits",
            stacklevel=3,
        )
    session = _Trainable(steps, pipeline, hooks, validation, plan, checkpointer, tracing_seconds)
    with (
        compiled_with(placed.original, spec.loss_and_metrics),
        leaving(pipeline, None if validation is None else validation.pipeline),
    ):
        if validation is not None and not validation.is_deferred:
            validation.check(placed.original)  # before an epoch is trained
        hooks.callbacks.attach(steps.loss_scale)
        if checkpointer is None:
            return session.run_from(None)
        checkpointer.attach(placed.model, placed.optimizer, steps.loss_scale, steps.update.state)
        try:
            start = checkpointer.restore() if resume else None
            drawn = -1 if start is None else start.drawn
            check_same(drawn, placed.strategy, "the number of batches they have behind them")
            return _with_retries(session.run_from, checkpointer, session.optimizer, plan, start)
        finally:
            checkpointer.close()


def recall(
    placed: PlacedModel, spec: StepSpec, pipeline: InputPipeline, checkpointer: Checkpointer
) -> LoopState | None:
    """Puts a run's last state into a placed model and its optimizer, without training; returns its position."""
    build(placed)
    steps = steps_for(placed, spec)
    steps.prepare(pipeline.spec())
    checkpointer.attach(placed.model, placed.optimizer, steps.loss_scale, steps.update.state)
    return checkpointer.restore()


def _refuse(placed: PlacedModel, spec: StepSpec) -> None:
    if not placed.model.trainable_variables and not isinstance(placed.optimizer, OwnStepOptimizer):
        warnings.warn(
            f"the model {placed.model.name!r} has no trainable weights: it is scored, not trained", stacklevel=4
        )
    if spec.noise_scale and spec.partition.num_microbatches == 1:
        raise ConfigError(
            "measure_noise_scale compares the gradients of the parts of a batch, but here each batch is whole: give "
            "virtual_replicas=2, a micro_batch_size, or several devices"
        )


class _Trainable:
    """The steps as the loop trains them: a `loop.run.TrainedStep`, with what the loop calls."""

    def __init__(
        self,
        steps: Steps,
        pipeline: InputPipeline,
        hooks: Hooks,
        validation: Validation | None,
        plan: TrainingPlan,
        checkpointer: Checkpointer | None,
        tracing_seconds: float,
    ) -> None:
        self._steps, self._pipeline, self._validation, self._plan = steps, pipeline, validation, plan
        self._checkpointer, self.tracing_seconds = checkpointer, tracing_seconds
        self._hooks = replace(
            hooks,
            checkpoints=CheckpointHook() if checkpointer is None else checkpointer,
            validate=self._validate,
            finish=self._finish,
        )
        assert steps.placed.optimizer is not None
        self.optimizer: Optimizer = steps.placed.optimizer

    def run_from(self, start: LoopState | None) -> LoopState:
        """Runs the loop from the beginning, or from a checkpoint's state."""
        if start is not None:
            start = replace(start, sums=self._steps.update.take_up(start.sums))
            passed = range(self._plan.initial_epoch, start.epoch)
            between = [functools.partial(self._validated_again, epoch) for epoch in passed]
            self._pipeline.start_at(start.epoch, start.step, between)

        def batches(epoch: int) -> EpochBatches:
            if start is None and epoch == self._hooks.callbacks.first_epoch:
                self._pipeline.begin_at(epoch)
            return self._pipeline.epoch(epoch)

        return run(self, batches, self._plan, self._hooks, start)

    @property
    def traces(self) -> int:
        """See `TrainedStep`."""
        return self._steps.traces.count

    def begin(self) -> None:
        """See `TrainedStep`."""
        self._steps.begin()

    def view(self, values: np.ndarray) -> ReportView:
        """See `TrainedStep`."""
        return ReportView(values, self._steps.spec.noise_scale)

    def logs(self, sums: np.ndarray) -> dict[str, Any]:
        """See `TrainedStep`."""
        return {**self._steps.logs(sums), **noise_of_epoch(self.view(sums))}

    def batch_logs(self, sums: np.ndarray) -> dict[str, Any]:
        """See `TrainedStep`."""
        return {**self._steps.batch_logs(sums), **noise_of_epoch(self.view(sums))}

    def train(self, batches: Dataset, count: int) -> tuple[ReportView, bool]:
        """See `TrainedStep`."""
        if isinstance(batches, RowsOfBatches):
            reports, finite, done = self._steps.train_rows(batches.arrays, *batches.take(count))
            batches.move_on(int(done))
            made = self.view(np.asarray(reports)[: int(done)])
        else:
            try:
                with telling_what_cannot_be_read():
                    reports, finite = self._steps.train(batches, tf.constant(count))
            except tf.errors.OutOfRangeError:
                self._pipeline.ended()
                raise
            made = self.view(np.asarray(reports))
            self._steps.traces.met(made.examples)
        if not finite:
            self._steps.update.check()
        return made, bool(finite)

    def _validate(self, epoch: int) -> dict[str, Any]:
        callbacks = self._hooks.callbacks
        self._pipeline.leave(not callbacks.stop)
        if self._validation is None:
            return {}
        return self._validation.logs(epoch, self._steps, callbacks)

    def _validated_again(self, epoch: int) -> None:
        if self._validation is not None:
            self._validation.draw_again(epoch)

    def _finish(self) -> None:
        optimizer, checkpointer = self.optimizer, self._checkpointer
        optimizer.overwrite_with_averages()
        if optimizer.replaced and checkpointer is not None and checkpointer.writes:
            # Before the last checkpoint, which no longer has them.
            save_weights(checkpointer.run_dir, optimizer.replaced, RAW_WEIGHTS_FILE)


def _with_retries(
    run_from: Callable[[LoopState | None], LoopState],
    checkpointer: Checkpointer,
    optimizer: Optimizer,
    plan: TrainingPlan,
    start: LoopState | None,
) -> LoopState:
    """Runs; goes back to the last checkpoint at half the rate where the plan says so and an update was not finite."""
    restored = 0 if start is None else start.restored
    while True:
        try:
            end = run_from(start)
            # So that what was made is there whatever ends the process before its result is written.
            checkpointer.save(end)
            checkpointer.flush()
            return end
        except DivergenceError as error:
            checkpointer.flush()
            if plan.on_divergence != "restore" or restored == _MAX_RESTORED:
                raise
            start = checkpointer.restore()
            if start is None:
                raise
            # The rate is the checkpoint's: halved once more for each try that it does not know of.
            optimizer.learning_rate = optimizer.learning_rate / 2.0 ** (restored + 1 - start.restored)
            restored += 1
            start = replace(start, restored=restored)
            warnings.warn(
                f"{error}; going on from batch {start.drawn} at learning rate {optimizer.learning_rate:g} "
                f"(try {restored} of {_MAX_RESTORED})",
                stacklevel=4,
            )
