"""`tfmb tune` without the command line: a search of one of our models or the user's."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfmb.backend import keras
from tfmb.choices import MODEL_NAMES
from tfmb.data import Splits, load
from tfmb.environment.imports import load_function
from tfmb.errors import ConfigError
from tfmb.jobs.build import build_model, loss_and_metrics_of
from tfmb.jobs.config import TrainConfig

from .budget import Budget
from .plan import SearchPlan
from .records import SearchRecord
from .run_search import search_in
from .space import Space
from .trials.trial import SearchTask

__all__ = ["TuneConfig", "tune_job"]


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """What the trials of a search on the command line train.

    Attributes:
        dataset: as in `TrainConfig`.
        mirror: as in `TrainConfig`.
        model: one of ours, or `package.module:build`, a function of `HyperParameters` that returns a Keras model.
        dropout: of our models: a value, a list or a range; None for their own.
        validation_size: train examples that trials are compared on; None for a tenth.
        space: what of our loop is searched.
        epochs: passes over the data a trial may spend.
        executions: trainings a trial.
        seed: decides everything.
        devices: as in `TrainConfig`.
    """

    dataset: str = "auto"
    mirror: str | None = None
    model: str = "cnn"
    dropout: Any = None
    validation_size: int | None = None
    space: Space
    epochs: float = 1.0
    executions: int = 1
    seed: int = 0
    devices: int | None = None

    def __post_init__(self) -> None:
        if self.dropout is not None and self.model not in MODEL_NAMES:
            raise ConfigError(f"--search dropout is for {', '.join(MODEL_NAMES)}: set it in {self.model}")


def _task_of(config: TuneConfig, slices: int) -> tuple[SearchTask, Splits]:
    """Loads the data, and makes what all trials of the search share."""
    splits = load(config.dataset, config.mirror)
    train, validation = splits.train.hold_out(config.validation_size or max(1, splits.train.size // 10))
    loss, metrics = None, None
    if config.model in MODEL_NAMES:
        loss_and_metrics = loss_and_metrics_of(None, TrainConfig(model=config.model))
        loss, metrics = loss_and_metrics.loss, loss_and_metrics.metrics
    task = SearchTask(
        build=_build(config, splits),
        train=train,
        validation=validation,
        budget=Budget(amount=config.epochs, slices=slices),
        space=config.space,
        devices=config.devices,
        seed=config.seed,
        loss=loss,
        metrics=metrics,
        executions=config.executions,
    )
    return task, splits


def tune_job(
    config: TuneConfig,
    plan: SearchPlan,
    folder: Path,
    say: Callable[[str], None],
    watch: Callable[[SearchRecord], None],
    conclude: Callable[[SearchRecord], None] = lambda record: None,
) -> SearchRecord:
    """Loads, searches, and writes the search's files.

    Args:
        config: what to train.
        plan: how to go about it.
        folder: the search's directory.
        say: gets a line for the user now and then.
        watch: gets the record after each trial.
        conclude: gets the record of all trials, before the page is written.

    Raises:
        ConfigError: options that cannot be honoured with this data or model.
        DataError: the data or the journal make no sense.
        DirectoryError: the directory is in use.
        StorageError: the page cannot be written; all else was.
    """
    task, splits = _task_of(config, plan.slices)
    train, size = task.train, task.validation.size
    say(f"data: {splits.origin}: {train.size:,} train, {size:,} for validation; the test split is not looked at")
    name = f"{train.name.partition('/')[0]} {config.model}"
    return search_in(folder, task, plan, name=name, watch=watch, say=say, conclude=conclude)


def _build(config: TuneConfig, splits: Splits) -> Callable[[Any], Any]:
    """`HyperParameters` -> a model: one of ours, or the user's. It goes to workers, and holds no data."""
    if config.model not in MODEL_NAMES:
        function = load_function(config.model, "--model")
        takes = len(inspect.signature(function).parameters)
        return function if takes else lambda hp: function()
    shape = getattr(splits.train.examples, "shape", None)
    input_shape = None if shape is None else tuple(shape[1:])
    classes, normalization = splits.train.num_classes, splits.normalization

    def ours(hp: Any) -> Any:
        rate = None if config.dropout is None else _dropout(hp, config.dropout)
        # The seed is the trial's: Keras's own generator was set to it.
        seed = int(keras.random.randint((), 0, 2**31 - 1, seed=keras.random.SeedGenerator()))
        return build_model(config.model, input_shape, classes, normalization, seed=seed, dropout=rate)

    return ours


def _dropout(hp: Any, given: Any) -> float:
    if isinstance(given, tuple):
        return float(hp.Float("dropout", *given))
    if isinstance(given, list) and len(given) > 1:
        return float(hp.Choice("dropout", given))
    return float(hp.Fixed("dropout", given[0] if isinstance(given, list) else given))
