"""One training session: everything it needs, run to its end and written down."""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfmb.distribution import describe
from tfmb.errors import DivergenceError, TfmbError
from tfmb.optimizers import Optimizer
from tfmb.training import engine
from tfmb.training.actions import MetricsLog, Progress, TensorBoardLog
from tfmb.training.feeds import Feed
from tfmb.training.keras_callbacks import KerasCallbacks
from tfmb.training.loop import Plan
from tfmb.training.numerics import ask_for_exact_numerics, numerics
from tfmb.training.parts import Cut
from tfmb.training.run_dir import hash_weights, save_weights, versions, write_run

__all__ = ["Session"]


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
        jit_compile: whether XLA compiles the work on each part of a batch.
    """

    model: Any
    optimizer: Optimizer
    recipe: engine.Recipe
    strategy: Any
    feed: Feed
    plan: Plan
    validation: Feed | None = None
    validates: Callable[[int], bool] = lambda epoch: True
    run_dir: Path | None = None
    record: dict[str, Any] = field(default_factory=dict)
    verbose: int = 0
    callbacks: Any = None
    params: dict[str, Any] = field(default_factory=dict)
    cut: Cut | None = None
    seed: int = 0
    jit_compile: bool = False

    def run(self) -> Any:
        """Trains; returns a `keras.callbacks.History`.

        Raises:
            DivergenceError: the model holds the last good weights.
            ConfigError: the parts do not fit together.
        """
        if self.cut is not None and self.cut.parts is not None:
            ask_for_exact_numerics(self.jit_compile)
        placed = engine.place(self.model, self.strategy, self.feed.example)
        watcher = KerasCallbacks(self.callbacks, self.model, placed, self.optimizer, self.params)
        if watcher.batch_watchers:
            warnings.warn(
                f"{', '.join(watcher.batch_watchers)} must see every batch, so each call makes one step: slower",
                stacklevel=3,
            )
        progress = Progress(
            self.plan.epochs, self.feed.steps, self.plan.log_every, lines=self.verbose == 1, stream=sys.stderr
        )
        self._write_record({"status": "running"})
        try:
            with progress.shown():
                engine.train(
                    placed,
                    self.optimizer,
                    self.recipe,
                    self.strategy,
                    self.feed,
                    self.plan,
                    validation=self.validation,
                    validates=self.validates,
                    actions=[*self._logs(), *([progress] if self.verbose else [])],
                    watcher=watcher,
                    cut=self.cut,
                    seed=self.seed,
                    original=self.model,
                    jit_compile=self.jit_compile,
                )
        except TfmbError as error:
            status = "diverged" if isinstance(error, DivergenceError) else "failed"
            self._write_record({"status": status, "error": str(error)})
            raise
        finally:
            watcher.close()
            engine.take_back(placed, self.model)
        return watcher.history

    def finish(self, result: dict[str, Any]) -> str:
        """Writes the final weights and the result where there is a run directory; returns the weights' SHA-256."""
        weights = self.model.get_weights()
        checksum = hash_weights(weights)
        if self.run_dir is not None:
            save_weights(self.run_dir, weights)
            self._write_record({"status": "finished", "weights_sha256": checksum, "result": result})
        return checksum

    def _logs(self) -> list[Any]:
        if self.run_dir is None:
            return []
        every = self.plan.log_every
        return [
            MetricsLog(self.run_dir, every, clips=self.optimizer.clips),
            TensorBoardLog(self.run_dir / "tensorboard", every),
        ]

    def _write_record(self, more: dict[str, Any]) -> None:
        if self.run_dir is None:
            return
        own = {
            "optimizer": {"class": type(self.optimizer).__name__, **self.optimizer.get_config()},
            "model": {
                "name": self.model.name,
                "parameters": int(self.model.count_params()),
                **self.record.get("model", {}),
            },
            "strategy": describe(self.strategy),
            "numerics": numerics(),
            "versions": versions(),
        }
        write_run(self.run_dir, {**self.record, **own, **more})
