"""One training session: everything it needs, run to its end and written down."""

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.backend import keras
from tfmb.distribution import describe, is_on_cpu
from tfmb.errors import DivergenceError, PreemptedError, StorageError, TfmbError
from tfmb.notebook import in_notebook
from tfmb.optimizers import Optimizer
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.optimizers.shared_state import value_of
from tfmb.training import engine, prepared
from tfmb.training.actions import MetricsLog, Progress, TensorBoardLog
from tfmb.training.agreement import reason_of_any
from tfmb.training.averages import remember
from tfmb.training.checkpoint import Checkpointer
from tfmb.training.compilation import Compiled, Execution, asked_for, compiled_before
from tfmb.training.feeds import Feed, ScoredFeed
from tfmb.training.identity import check_identity
from tfmb.training.keras_callbacks import KerasCallbacks
from tfmb.training.loop import Plan
from tfmb.training.meter import Meter
from tfmb.training.noise_scale import NoiseScale
from tfmb.training.numerics import ask_for_exact_numerics, keep_additions_in_order, numerics
from tfmb.training.parts import Cut
from tfmb.training.placement import place, take_back
from tfmb.training.preemption import StopSignals, uninterrupted
from tfmb.training.reading import Reading, reading_of
from tfmb.training.recipe import Recipe
from tfmb.training.run_dir import (
    RAW_WEIGHTS_FILE,
    hash_of_raw_weights,
    hash_weights,
    load_weights,
    save_weights,
    versions,
)
from tfmb.training.run_record import read_run, write_run
from tfmb.workers import naming_lost_peers

__all__ = ["Session"]

_DECIDE_BITS = ("python", "platform", "tfmb", "tensorflow", "keras", "numpy")


@dataclass(frozen=True, kw_only=True)
class Session:
    """A model and all that its training depends on.

    Attributes:
        model: the user's model, which holds the trained weights in the end.
        optimizer: ours.
        recipe: loss and metrics.
        strategy: where to train.
        feed: the training batches.
        plan: how long.
        validation: batches to score after epochs, or None.
        validates: epoch (from 0) -> whether to score it.
        run_dir: an empty directory for the records, or None.
        record: what `run.json` shall say besides; its `model` is added to.
        verbose: 0 for nothing, 1 for progress, 2 for a line an epoch.
        callbacks: Keras's.
        params: what the callbacks are told of the run.
        cut: how batches are cut into parts; None for one part a device.
        seed: decides the masks of `tfmb.layers.Dropout`.
        jit_compile: what XLA compiles: see `compilation.asked_for`.
        prefetch: how many batches are read ahead; None for as many as are found best.
        checkpoints: the run's directory for a process that saves or only reads checkpoints there, or None.
        checkpoint_every: updates between two of them.
        keep: how many of the last ones stay.
        resume: whether to go on with the run in that directory.
        allow_drift: whether to go on though something differs.
        identity: what the caller knows of all that must be the same for that.
        before_training: see `job.train_job`.
        scored: see `engine.train`.
        meter: adds up what was trained on.
        counts: in the end, updates that were not made because they were not finite, and returns to a checkpoint.
    """

    model: Any
    optimizer: Optimizer
    recipe: Recipe
    strategy: Any
    feed: Feed
    plan: Plan
    validation: ScoredFeed | None = None
    validates: Callable[[int], bool] = lambda epoch: True
    run_dir: Path | None = None
    record: dict[str, Any] = field(default_factory=dict)
    verbose: int = 0
    callbacks: Any = None
    params: dict[str, Any] = field(default_factory=dict)
    cut: Cut | None = None
    seed: int = 0
    jit_compile: bool | str = False
    prefetch: int | None = None
    checkpoints: Path | None = None
    checkpoint_every: int = 100
    keep: int = 2
    resume: bool = False
    allow_drift: bool = False
    identity: dict[str, Any] = field(default_factory=dict)
    before_training: Callable[[str, float], None] = lambda compiled, seconds: None
    scored: Callable[..., dict[str, Any]] | None = None
    meter: Meter = field(default_factory=Meter)
    counts: dict[str, int] = field(default_factory=dict)

    def run(self) -> Any:
        """Trains; returns a `keras.callbacks.History`.

        Raises:
            DivergenceError: the model holds the last good weights.
            PreemptedError: a signal asked it to end; it can go on.
            PeerLostError: another worker died or hangs.
            ConfigError: the parts do not fit together, or not with what the run began with.
        """
        if self.cut is not None and self.cut.parts is not None:
            ask_for_exact_numerics(asked_for(self.jit_compile) not in (None, Compiled.NOTHING))
        if self.checkpoints is not None:  # another process, which traces anew, may go on with the run
            keep_additions_in_order()
        with naming_lost_peers(self.strategy):
            placed = self._place()
        before = {}
        if self.resume and self.run_dir is not None:
            before = read_run(self.run_dir)
            check_identity(before.get("identity"), self._began_as, self.run_dir, self.allow_drift)
        watcher = KerasCallbacks(self.callbacks, self.model, placed, self.optimizer, self.params)
        if watcher.batch_watchers:
            warnings.warn(
                f"{', '.join(watcher.batch_watchers)} must see every batch, so each call makes one step: slower",
                stacklevel=3,
            )
        # What is measured below are the batches that the training will draw.
        self.feed.on_device = is_on_cpu(self.strategy)
        self.feed.static = self.cut is not None and self.cut.static
        execution = self._execution(placed, before.get("execution"), watcher.each_batch)
        reading = self._reading(before.get("reading"))
        for name, found in (("execution", execution), ("input", reading)):
            if self.verbose and found.seconds:
                print(f"{name}: {found}", file=sys.stderr, flush=True)
        compiled = execution.compiled.value
        if compiled in execution.seconds and self.feed.steps is not None:
            self.before_training(compiled, execution.seconds[compiled] * self._updates(self.feed.steps))
        self.record.update(execution=execution.record(), reading=reading.record())
        progress = Progress(
            self.plan.epochs,
            self.feed.steps,
            self.plan.log_every,
            lines=self.verbose == 1,
            stream=sys.stderr,
            notebook=in_notebook(),
        )
        self._write_record({"status": "running"})  # before any other file: without it the directory is no run's
        self.meter.tracing_seconds += execution.tracing_seconds
        logs = self._logs(execution.tracing_seconds)
        advice = "" if self.run_dir is None else f", with --resume {self.run_dir}"
        try:
            with (
                self._telling_of_a_move(),
                progress.shown(),
                naming_lost_peers(self.strategy, advice),
                contextlib.ExitStack() as stack,
            ):
                checkpointer = None
                if self.checkpoints is not None:
                    signals = stack.enter_context(StopSignals())
                    checkpointer = self._checkpointer(self.checkpoints, {"callbacks": watcher}, signals)
                    if self.run_dir is not None:
                        checkpointer.stateful["metrics"] = logs[0]
                end = engine.train(
                    placed,
                    self.optimizer,
                    self.recipe,
                    self.strategy,
                    self.feed,
                    self.plan,
                    validation=self.validation,
                    validates=self.validates,
                    actions=[*logs, self.meter, *([progress] if self.verbose else [])],
                    watcher=watcher,
                    cut=self.cut,
                    seed=self.seed,
                    original=self.model,
                    compiled=execution.compiled,
                    checkpointer=checkpointer,
                    resume=self.resume,
                    tracing_seconds=execution.tracing_seconds,
                    scored=self.scored,
                )
                self.counts.update(skipped_updates=end.skipped, restored=end.restored)
        except PreemptedError as error:
            self._write_record({"status": "preempted", "error": str(error)})
            raise
        except TfmbError as error:
            status = "diverged" if isinstance(error, DivergenceError) else "failed"
            with contextlib.suppress(OSError):  # a disk that is full must not hide what the run failed of
                self._write_record({"status": status, "error": str(error)})
            raise
        finally:
            with uninterrupted():  # a second Ctrl-C must not part the model from what it was trained to
                watcher.close()
                take_back(placed, self.model)
        remember(self.model, self.optimizer.replaced)
        return watcher.history

    def _place(self) -> Any:
        """The model that is trained, with all its variables, which a model's own step makes when it is traced."""
        placed = place(self.model, self.strategy, self.feed.first_inputs())
        if isinstance(self.optimizer, OwnStepOptimizer):
            cut = Cut(replicas=self.strategy.num_replicas_in_sync) if self.cut is None else self.cut
            prepared.build(placed, self.optimizer, self.strategy, self.model)
            where = (self.strategy, (cut, self.seed, Compiled.NOTHING), self.model)
            prepared.steps_for(placed, self.optimizer, self.recipe, *where).prepare(self.feed.spec())
        return placed

    def _execution(self, placed: Any, before: Any, each_batch: bool) -> Execution:
        """As asked for, as the run began, or as a trial of long calls finds fastest."""
        compiled = asked_for(self.jit_compile)
        if compiled is not None:
            return Execution(compiled=compiled)
        if before is not None:
            return Execution(compiled=compiled_before(before))
        if self.feed.steps is None or each_batch:
            return Execution()
        fingerprint = self._machine | {"model": self._began_as["model"]}
        fingerprint["optimizer"] = {**self._began_as["optimizer"], "learning_rate": None}
        fingerprint["policy"] = keras.config.dtype_policy().name
        return prepared.execution_of(
            placed,
            self.optimizer,
            self.recipe,
            self.strategy,
            self.feed,
            self.cut,
            self.seed,
            self._updates(self.feed.steps),
            fingerprint,
            self.model,
        )

    def _reading(self, before: Any) -> Reading:
        """As asked for, as the run began, or as measured; the feed is told."""
        updates = None if self.feed.steps is None else self._updates(self.feed.steps)
        reading = reading_of(self.feed, self.prefetch, before, updates, self._machine)
        if reading.prefetch is not None:
            self.feed.prefetch = reading.prefetch
        return reading

    @property
    def _machine(self) -> dict[str, Any]:
        return {key: self._began_as[key] for key in ("versions", "numerics")}

    def _updates(self, steps: int) -> int:
        """Updates of a new training with so many an epoch."""
        return (self.plan.epochs - self.plan.initial_epoch) * steps

    def _checkpointer(self, run_dir: Path, stateful: dict[str, Any], signals: StopSignals) -> Checkpointer:
        return Checkpointer(
            run_dir=run_dir,
            every=self.checkpoint_every,
            keep=self.keep,
            identity=self._began_as,
            stateful=stateful,
            stop=reason_of_any(signals.reason, self.strategy),
            at_start=self.plan.on_divergence == "restore",
            allow_drift=self.allow_drift,
            replicas=self.strategy.num_replicas_in_sync,
            exact=self.cut is not None and self.cut.parts is not None,
            writes=self.run_dir is not None,
        )

    @functools.cached_property
    def _began_as(self) -> dict[str, Any]:
        """What must be the same for the run to go on; as it was before the first update, which may change the rate."""
        layers = [type(layer).__name__ for layer in self.model._flatten_layers(include_self=False)]
        callbacks = keras.tree.flatten(getattr(self.callbacks, "callbacks", self.callbacks) or [])
        variables = [f"{tuple(v.shape)} {v.dtype} {v.trainable}" for v in self.model.variables]
        # But for its name, which Keras makes up anew in each process.
        optimizer = {key: value for key, value in self.optimizer.get_config().items() if key != "name"}
        return {
            **self.identity,
            "model": {"layers": " ".join(layers), "variables": " ".join(variables)},
            "optimizer": {"class": type(self.optimizer).__name__, **optimizer},
            "callbacks": " ".join(type(callback).__name__ for callback in callbacks),
            "versions": {name: version for name, version in versions().items() if name in _DECIDE_BITS},
            "numerics": numerics(),
        }

    def recall(self, record: dict[str, Any]) -> Any:
        """What a finished run came to: the model and the optimizer get their state; returns its History.

        Raises:
            ConfigError: something differs from what it was made with.
            DataError: its files are damaged.
        """
        assert self.checkpoints is not None
        placed = self._place()
        check_identity(record.get("identity"), self._began_as, self.checkpoints, self.allow_drift)
        checkpointer = self._checkpointer(self.checkpoints, {}, StopSignals())
        found = None
        checkpointer.exact = True  # nothing is computed on these devices
        if checkpointer.folder.is_dir():  # which a user may delete to save room
            where = (self.strategy, self.feed, checkpointer, self.cut, self.model)
            found = engine.recall(placed, self.optimizer, self.recipe, *where)
            take_back(placed, self.model)
            for theirs, ours in self.optimizer.counterparts(self.model.trainable_variables):
                theirs.assign(value_of(ours))
        if found is None or not found.ended:
            self.model.set_weights(load_weights(self.checkpoints, str(record.get("weights_sha256"))))
        if raw := record.get("raw_weights_sha256"):
            remember(self.model, load_weights(self.checkpoints, str(raw), RAW_WEIGHTS_FILE))
        history = keras.callbacks.History()
        history.set_model(self.model)
        logs = record.get("history") or {}
        known = {key: [np.nan if value is None else value for value in values]  # as a record has what is not finite
                 for key, values in logs.get("history", {}).items()}  # fmt: skip
        history.history, history.epoch = known, list(logs.get("epochs", []))
        self.model.history = history
        return history

    def finish(self, result: dict[str, Any], history: Any) -> str:
        """Writes the final weights and the result where there is a run directory; returns the weights' SHA-256."""
        weights = self.model.get_weights()
        checksum = hash_weights(weights)
        if self.run_dir is None:
            return checksum
        with self._telling_of_a_move():
            save_weights(self.run_dir, weights)
            logs = {key: [np.asarray(v).tolist() for v in values] for key, values in history.history.items()}
            ended: dict[str, Any] = {"history": {"history": logs, "epochs": list(history.epoch)}, "result": result}
            if raw := hash_of_raw_weights(self.run_dir):
                ended["raw_weights_sha256"] = raw
            self._write_record({"status": "finished", "weights_sha256": checksum, **ended})
        return checksum

    @functools.cached_property
    def _inode(self) -> int:
        """By which the run's directory is known whatever its name, from when it was first asked for."""
        assert self.run_dir is not None
        return os.stat(self.run_dir).st_ino

    @contextlib.contextmanager
    def _telling_of_a_move(self) -> Iterator[None]:
        """Names what cannot be found any more because its directory has another name.

        Raises:
            StorageError: so it is.
        """
        if self.run_dir is None:
            yield
            return
        was = self._inode
        try:
            yield
        except (OSError, TfmbError) as error:
            if os.path.exists(self.run_dir) and os.stat(self.run_dir).st_ino == was:
                raise
            raise StorageError(
                f"{self.run_dir} was renamed or removed while it was trained: what was saved lies where it is now; "
                "go on with --resume and that name"
            ) from error

    def _logs(self, tracing_seconds: float) -> list[Any]:
        if self.run_dir is None:
            return []
        every = self.plan.log_every
        noise = NoiseScale() if self.recipe.noise_scale else None
        return [
            MetricsLog(self.run_dir, every, self.optimizer.clips, noise, tracing_seconds),
            TensorBoardLog(self.run_dir / "tensorboard", every, noise=noise),
        ]

    def _write_record(self, more: dict[str, Any]) -> None:
        if self.run_dir is None:
            return
        own = {
            "optimizer": {"class": type(self.optimizer).__name__, **self.optimizer.get_config()},
            "model": {
                "name": self.model.name,
                "parameters": sum(int(np.prod(weight.shape)) for weight in self.model.weights),
                **self.record.get("model", {}),
            },
            "strategy": describe(self.strategy),
            "numerics": numerics(),
            "versions": versions(),
        }
        counts = {"not_finite": self.counts} if any(self.counts.values()) else {}
        write_run(self.run_dir, {**self.record, **own, "identity": self._began_as, **counts, **more})
