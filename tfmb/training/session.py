"""One training session: everything it needs, run to its end and written down."""

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfmb.backend import keras
from tfmb.choices import JitScope
from tfmb.distribution.consensus import reason_of_any
from tfmb.distribution.multi_worker import naming_lost_peers
from tfmb.distribution.strategy import is_on_cpu
from tfmb.environment.console import in_notebook
from tfmb.optimizers import Optimizer
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.optimizers.shared_state import value_of
from tfmb.runs.identity import check_identity
from tfmb.runs.numerics import ask_for_exact_numerics, keep_additions_in_order, numerics
from tfmb.runs.raw_weights import remember
from tfmb.runs.run_dir import RAW_WEIGHTS_FILE, load_weights, versions
from tfmb.runs.run_record import read_run
from tfmb.training import trainer
from tfmb.training.callbacks.fit_callbacks import KerasCallbacks
from tfmb.training.callbacks.loggers import MetricsLog, ProgressBar, TensorBoardLog
from tfmb.training.checkpoint.checkpointer import Checkpointer
from tfmb.training.checkpoint.preemption import StopSignals, uninterrupted
from tfmb.training.execution import step_cache
from tfmb.training.execution.jit_trial import ExecutionPlan, recorded_jit_scope
from tfmb.training.execution.placement import place, take_back
from tfmb.training.input.pipeline import InputPipeline, configured
from tfmb.training.input.prefetch import PrefetchChoice, choose_prefetch
from tfmb.training.loop.hooks import Hooks
from tfmb.training.loop.reports import Meter
from tfmb.training.run_writer import RunWriter
from tfmb.training.scoring import Validation
from tfmb.training.spec import TrainSpec
from tfmb.training.step.noise_scale import NoiseScaleEstimator
from tfmb.training.step.spec import PlacedModel

__all__ = ["Session", "Shown"]

_DECIDE_BITS = ("python", "platform", "tfmb", "tensorflow", "keras", "numpy")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The output of a training: progress on the screen, and Keras's callbacks.

    Attributes:
        verbose: 0 for nothing, 1 for progress, 2 for a line an epoch.
        callbacks: Keras's, or a `keras.callbacks.CallbackList`.
        params: the run's facts for the callbacks.
    """

    verbose: int = 0
    callbacks: Any = None
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Session:
    """A model and all that its training depends on.

    Attributes:
        model: the user's model, which holds the trained weights in the end.
        optimizer: ours.
        strategy: the strategy to train under.
        pipeline: the training batches.
        spec: all other decisions.
        validation: the validation after epochs, or None.
        record: further entries of `run.json`.
        shown: the output of the training.
        before_training: see `jobs.train.train_job`.
        meter: adds up the examples that were trained on.
    """

    model: Any
    optimizer: Optimizer
    strategy: Any
    pipeline: InputPipeline
    spec: TrainSpec
    validation: Validation | None = None
    record: dict[str, Any] = field(default_factory=dict)
    shown: Shown = field(default_factory=Shown)
    before_training: Callable[[str, float], None] = lambda compiled, seconds: None
    meter: Meter = field(default_factory=Meter)

    def run(self) -> Any:
        """Trains; returns a `keras.callbacks.History`.

        Raises:
            DivergenceError: the model holds the last good weights.
            PreemptedError: a signal asked it to end; it can go on.
            PeerLostError: another worker died or hangs.
            ConfigError: the parts do not fit together, or not with what the run began with.
        """
        self._pin_numerics()
        with naming_lost_peers(self.strategy):
            placed = self._place()
        before = self._before()
        shown = self.shown
        callbacks = KerasCallbacks(shown.callbacks, self.model, placed.model, self.optimizer, shown.params)
        if callbacks.batch_watchers:
            warnings.warn(
                f"{', '.join(callbacks.batch_watchers)} must see every batch, so each call makes one step: slower",
                stacklevel=3,
            )
        # What is measured below are the batches that the training will draw.
        static = self.spec.step.partition.static
        pipeline = configured(self.pipeline, on_device=is_on_cpu(self.strategy), static=static)
        execution = self._execution(placed, pipeline, before.get("execution"), callbacks.each_batch)
        reading = choose_prefetch(
            pipeline, self.spec.prefetch, before.get("reading"), self._updates(pipeline.steps), self._machine
        )
        if reading.prefetch is not None:
            pipeline = configured(pipeline, prefetch=reading.prefetch)
        self._tell_of(execution, reading)
        self._writer.add(execution=execution.record(), reading=reading.record())
        self._writer.write(status="running")  # before any other file: without it the directory is no run's
        self.meter.tracing_seconds += execution.tracing_seconds
        logs, progress = self._logs(execution.tracing_seconds), self._progress()
        advice = "" if self.spec.saving.written is None else f", with --resume {self.spec.saving.written}"
        try:
            with (
                self._writer.telling_how_it_ends(),
                self._writer.telling_of_a_move(),
                progress.shown(),
                naming_lost_peers(self.strategy, advice),
                self._signals() as signals,
            ):
                stateful = {"callbacks": callbacks, **({"metrics": logs[0]} if logs else {})}
                end = trainer.train(
                    placed,
                    replace(self.spec.step, jit_scope=execution.compiled),
                    pipeline,
                    self.spec.plan,
                    Hooks(loggers=[*logs, self.meter, *([progress] if shown.verbose else [])], callbacks=callbacks),
                    validation=None if self.validation is None else self.validation.configured(static=static),
                    checkpointer=None if signals is None else self._checkpointer(stateful, signals),
                    resume=self.spec.saving.resume,
                    tracing_seconds=execution.tracing_seconds,
                )
                self._writer.counts.update(skipped_updates=end.skipped, restored=end.restored)
        finally:
            with uninterrupted():  # a second Ctrl-C must not part the model from what it was trained to
                callbacks.close()
                take_back(placed.model, self.model)
        remember(self.model, self.optimizer.replaced)
        return callbacks.history

    def recall(self, record: dict[str, Any]) -> Any:
        """Gives the model and the optimizer the state of a finished run; returns its History.

        Raises:
            ConfigError: something differs from what it was made with.
            DataError: its files are damaged.
        """
        saving = self.spec.saving
        assert saving.run_dir is not None
        placed = self._place()
        check_identity(record.get("identity"), self._began_as, saving.run_dir, saving.allow_mismatch)
        checkpointer = self._checkpointer({}, StopSignals())
        found = None
        checkpointer.exact = True  # nothing is computed on these devices
        if checkpointer.folder.is_dir():  # which a user may delete to save room
            found = trainer.recall(placed, self.spec.step, self.pipeline, checkpointer)
            take_back(placed.model, self.model)
            for theirs, ours in self.optimizer.counterparts(self.model.trainable_variables):
                theirs.assign(value_of(ours))
        if found is None or not found.ended:
            self.model.set_weights(load_weights(saving.run_dir, str(record.get("weights_sha256"))))
        if raw := record.get("raw_weights_sha256"):
            remember(self.model, load_weights(saving.run_dir, str(raw), RAW_WEIGHTS_FILE))
        history = keras.callbacks.History()
        history.set_model(self.model)
        logs = record.get("history") or {}
        known = {key: [np.nan if value is None else value for value in values]  # as a record has what is not finite
                 for key, values in logs.get("history", {}).items()}  # fmt: skip
        history.history, history.epoch = known, list(logs.get("epochs", []))
        self.model.history = history
        return history

    def finish(self, result: dict[str, Any], history: Any) -> str:
        """Writes the final weights and the result if there is a run directory; returns the weights' SHA-256."""
        return self._writer.finish(result, history)

    def _pin_numerics(self) -> None:
        if self.spec.step.partition.virtual_replicas is not None:
            ask_for_exact_numerics(self.spec.jit_scope not in (None, JitScope.NOTHING))
        if self.spec.saving.run_dir is not None:  # another process, which traces anew, may go on with the run
            keep_additions_in_order()

    def _place(self) -> PlacedModel:
        """The model that is trained, with all its variables, which a model's own step makes when it is traced."""
        placed = PlacedModel(
            model=place(self.model, self.strategy, self.pipeline.first_inputs()),
            strategy=self.strategy,
            optimizer=self.optimizer,
            original=self.model,
        )
        if isinstance(self.optimizer, OwnStepOptimizer):
            step_cache.build(placed)
            step_cache.steps_for(placed, self.spec.step).prepare(self.pipeline.spec())
        return placed

    def _before(self) -> dict[str, Any]:
        """The record of the run that goes on; empty for a new one."""
        saving = self.spec.saving
        if not saving.resume or saving.written is None:
            return {}
        before = read_run(saving.written)
        check_identity(before.get("identity"), self._began_as, saving.written, saving.allow_mismatch)
        return before

    def _execution(self, placed: PlacedModel, pipeline: InputPipeline, before: Any, each_batch: bool) -> ExecutionPlan:
        """Returns the execution: as asked for, as the run began, or the fastest in a trial of long calls."""
        if self.spec.jit_scope is not None:
            return ExecutionPlan(compiled=self.spec.jit_scope)
        if before is not None:
            return ExecutionPlan(compiled=recorded_jit_scope(before))
        updates = self._updates(pipeline.steps)
        if updates is None or each_batch:
            return ExecutionPlan()
        fingerprint = self._machine | {"model": self._began_as["model"]}
        fingerprint["optimizer"] = {**self._began_as["optimizer"], "learning_rate": None}
        fingerprint["policy"] = keras.config.dtype_policy().name
        return step_cache.execution_of(placed, self.spec.step, pipeline, updates, fingerprint)

    def _tell_of(self, execution: ExecutionPlan, reading: PrefetchChoice) -> None:
        """Shows the measurements, and gives the caller the estimated time of the training."""
        for name, found in (("execution", execution), ("input", reading)):
            if self.shown.verbose and found.seconds:
                print(f"{name}: {found}", file=sys.stderr, flush=True)
        scope, updates = execution.compiled.value, self._updates(self.pipeline.steps)
        if scope in execution.seconds and updates is not None:
            self.before_training(scope, execution.seconds[scope] * updates)

    @property
    def _machine(self) -> dict[str, Any]:
        return {key: self._began_as[key] for key in ("versions", "numerics")}

    def _updates(self, steps: int | None) -> int | None:
        """Returns the updates of a new training with `steps` an epoch; None if that is not known."""
        return None if steps is None else (self.spec.plan.epochs - self.spec.plan.initial_epoch) * steps

    def _signals(self) -> Any:
        return contextlib.nullcontext() if self.spec.saving.run_dir is None else StopSignals()

    def _checkpointer(self, stateful: dict[str, Any], signals: StopSignals) -> Checkpointer:
        saving = self.spec.saving
        assert saving.run_dir is not None
        return Checkpointer(
            run_dir=saving.run_dir,
            every=saving.checkpoint_every,
            keep=saving.keep_checkpoints,
            identity=self._began_as,
            stateful=stateful,
            stop=reason_of_any(signals.reason, self.strategy),
            at_start=self.spec.plan.on_divergence == "restore",
            allow_mismatch=saving.allow_mismatch,
            replicas=self.strategy.num_replicas_in_sync,
            exact=self.spec.step.partition.virtual_replicas is not None,
            writes=saving.writes,
        )

    def _progress(self) -> ProgressBar:
        return ProgressBar(
            self.spec.plan.epochs,
            self.pipeline.steps,
            self.spec.plan.log_every,
            lines=self.shown.verbose == 1,
            stream=sys.stderr,
            notebook=in_notebook(),
        )

    def _logs(self, tracing_seconds: float) -> list[Any]:
        folder, every = self.spec.saving.written, self.spec.plan.log_every
        if folder is None:
            return []
        noise = NoiseScaleEstimator() if self.spec.step.noise_scale else None
        return [
            MetricsLog(folder, every, self.optimizer.clips, noise, tracing_seconds),
            TensorBoardLog(folder / "tensorboard", every, noise=noise),
        ]

    @functools.cached_property
    def _writer(self) -> RunWriter:
        record = {**self.record, "identity": self._began_as}
        return RunWriter(self.spec.saving.written, self.model, self.optimizer, self.strategy, record)

    @functools.cached_property
    def _began_as(self) -> dict[str, Any]:
        """The facts that must be the same for the run to go on, as of before the first update moves the rate."""
        layers = [type(layer).__name__ for layer in self.model._flatten_layers(include_self=False)]
        callbacks = keras.tree.flatten(getattr(self.shown.callbacks, "callbacks", self.shown.callbacks) or [])
        variables = [f"{tuple(v.shape)} {v.dtype} {v.trainable}" for v in self.model.variables]
        # But for its name, which Keras makes up anew in each process.
        optimizer = {key: value for key, value in self.optimizer.get_config().items() if key != "name"}
        return {
            "config": self.spec.config,
            "data": self.spec.data,
            "model": {"layers": " ".join(layers), "variables": " ".join(variables)},
            "optimizer": {"class": type(self.optimizer).__name__, **optimizer},
            "callbacks": " ".join(type(callback).__name__ for callback in callbacks),
            "versions": {name: version for name, version in versions().items() if name in _DECIDE_BITS},
            "numerics": numerics(),
        }
