"""The model, data and options of a run, built again from its record, the user's code, and the data; or a model's."""

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfmb.data import load
from tfmb.data.augment import Augmentation
from tfmb.data.source import Source
from tfmb.errors import ConfigError, DataError
from tfmb.jobs import build
from tfmb.jobs.config import TrainConfig
from tfmb.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, interop, schedules
from tfmb.runs.run_record import read_run
from tfmb.training.keras_api.compile_args import read_compiled
from tfmb.types import Data, KerasModel
from tfmb.verification.made_up import made_up_examples

__all__ = ["QUICK_STEPS", "Subject", "read_subject", "subject_of_model"]

_CLASSES: dict[str, Any] = {cls.__name__: cls for cls in (SGD, RMSprop, Adam, AdamW)}
_MOST_STEPS = 1000
# Two epochs of two batches, the second of them smaller.
QUICK_STEPS = 4
_QUICK_BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run to verify, cut down to a few batches of its own data.

    Attributes:
        run_dir: where it lies.
        source: the first rows of its training data: whole batches and a smaller last one.
        batch_size: examples an update.
        epochs: passes over these rows.
        seed: the run's.
        shuffle: whether each epoch has a new order.
        virtual_replicas: V of the run; None if it had one part a device.
        augmentation: of its images, or None.
        make_model: precision, or None for the run's own -> a compiled model with the initial weights.
        make_optimizer: model -> a new optimizer.
    """

    run_dir: Path
    source: Source
    batch_size: int
    epochs: int
    seed: int
    shuffle: bool
    virtual_replicas: int | None
    augmentation: Augmentation | None
    make_model: Callable[[str | None], Any]
    make_optimizer: Callable[[Any], Optimizer]

    @property
    def updates(self) -> int:
        """Updates of all epochs."""
        return self.epochs * -(-self.source.size // self.batch_size)


def read_subject(run_dir: str | Path, model: str | None, data: str | None, mirror: str | None, steps: int) -> Subject:
    """Builds the model, data and options of a run again.

    Args:
        run_dir: made by `tfmb train` or `tfmb.fit`.
        model: `module:build` where the model is the user's own.
        data: `module:load` where the data is the user's own.
        mirror: a folder with the files that TFDS would download.
        steps: the approximate number of updates to make, from 2 to 1000.

    Raises:
        ConfigError: the user's own model or data was not named, or has no loss.
        DataError: no run, a damaged record, or other data.
    """
    if not 2 <= steps <= _MOST_STEPS:
        raise ConfigError(f"steps={steps} must be from 2 to {_MOST_STEPS}")
    run_dir = Path(run_dir)
    record = read_run(run_dir)
    if record.get("made_by") == "tfmb train":
        return _of_train(run_dir, record, model, data, mirror, steps)
    if record.get("made_by") == "tfmb.fit":
        return _of_fit(run_dir, record, model, data, mirror, steps)
    raise DataError(f"{run_dir}: the record does not say what made the run: it is damaged")


def subject_of_model(model: str, data: str | None) -> Subject:
    """Returns what is trained: the model with its own optimizer, on a few rows.

    Args:
        model: as in `runs.verify_model`.
        data: as in `runs.verify_model`.

    Raises:
        ConfigError: as in `runs.verify_model`.
    """

    def make_model(precision: str | None) -> KerasModel:
        made = build.build_model(model, None, None, None, precision=precision)
        compiled = read_compiled(made)
        if compiled.loss is None or compiled.optimizer is None:
            raise ConfigError(f"{model}: the model is not compiled: let the function compile it, with a loss")
        return made

    rows = _QUICK_BATCH_SIZE + _QUICK_BATCH_SIZE // 2
    made = make_model(None)  # before the data: its faults are named first
    if data is None:
        x, y = made_up_examples(made, rows, model)
        source = Source.from_arrays(x, y, name="made up")
    else:
        train = load(data).train
        source = train.rows(slice(0, min(rows, train.size)))
    return Subject(
        run_dir=Path(model),
        source=source,
        batch_size=min(_QUICK_BATCH_SIZE, source.size),
        epochs=QUICK_STEPS // 2,
        seed=0,
        shuffle=True,
        virtual_replicas=None,
        augmentation=None,
        make_model=make_model,
        make_optimizer=lambda made: interop.get(read_compiled(made).optimizer),
    )


def _of_train(run_dir: Path, record: Any, model: KerasModel, data: Data, mirror: Any, steps: int) -> Subject:
    config = TrainConfig.from_dict(record["config"], str(run_dir))
    if config.own_model and model is None:
        raise ConfigError(f"{run_dir} holds a model of your own (it was {config.model}): give --model module:function")
    if not config.own_model and model not in (None, config.model_name):
        raise ConfigError(f"--model {model}, but {run_dir} holds {config.model_name}: leave --model out")
    if config.own_data and data is None:
        raise ConfigError(f"{run_dir} was trained on data of your own (it was {config.dataset}): give --dataset")
    about = _table(record, "data", run_dir)
    dataset = str(about.get("name")) if config.dataset == "auto" else config.dataset
    own = config.own_model and model is not None
    found = dataclasses.replace(
        config, model=model if own else config.model, dataset=data or dataset, mirror=mirror or config.mirror
    )
    parts = build.prepare(found)
    _check_data(run_dir, about, parts.train)
    shape = getattr(parts.train.examples, "shape", None)

    def make_model(precision: str | None) -> Any:
        chosen = found if precision is None else dataclasses.replace(found, precision=precision)
        made = build.build_model(
            chosen.model_name,
            None if shape is None else tuple(shape[1:]),
            parts.train.num_classes,
            parts.splits.normalization,
            seed=chosen.seed,
            dropout=chosen.dropout,
            precision=chosen.precision,
        )
        if not chosen.own_model:
            loss_and_metrics = build.loss_and_metrics_of(made, chosen)
            made.compile(None, loss_and_metrics.loss, metrics=loss_and_metrics.metrics)
        return made

    return Subject(
        run_dir=run_dir,
        **_few_batches(parts.train, parts.batch_size, steps),
        seed=config.seed,
        shuffle=config.shuffle,
        virtual_replicas=_parts_of(record.get("virtual_replicas")),
        augmentation=None if config.augment is None else Augmentation.parse(config.augment),
        make_model=make_model,
        make_optimizer=lambda made: build.make_optimizer(found, made, parts.train.size, parts.epochs, parts.batch_size),
    )


def _of_fit(run_dir: Path, record: Any, model: KerasModel, data: Data, mirror: Any, steps: int) -> Subject:
    config = record["config"]
    if model is None or data is None:
        raise ConfigError(f"{run_dir} was made by tfmb.fit: give --model module:function and --dataset module:function")
    seed, size = config.get("seed"), config.get("batch_size") or 32
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in (seed, size)) or size < 1:
        raise DataError(f"{run_dir}: the record's options make no sense: the run is damaged")
    train = load(data, mirror).train
    _check_data(run_dir, _table(record, "data", run_dir), train)
    identity = _table(record, "identity", run_dir)
    began_as = _table(identity, "optimizer", run_dir)
    if augment := _table(identity, "config", run_dir).get("augment"):
        warnings.warn(
            f"the run's augmentation ({augment}) cannot be read from its record: it is left out", stacklevel=2
        )

    def make_model(precision: str | None) -> Any:
        made = build.build_model(model, None, None, None, seed=seed, precision=precision)
        if read_compiled(made).loss is None:
            raise ConfigError(f"the model {made.name!r} has no loss: let {model} return it compiled")
        return made

    return Subject(
        run_dir=run_dir,
        **_few_batches(train, min(size, train.size), steps),
        seed=seed,
        shuffle=bool(config.get("shuffle", True)),
        virtual_replicas=_parts_of(config.get("virtual_replicas")),
        augmentation=None,
        make_model=make_model,
        make_optimizer=lambda made: _optimizer_of(began_as, made, run_dir),
    )


def _few_batches(source: Source, batch_size: int, steps: int) -> dict[str, Any]:
    """Returns rows for two epochs or more, of about `steps` updates in all; the last batch of an epoch is smaller."""
    an_epoch = max(steps // 2, 1)
    rows = min(source.size, (an_epoch - 1) * batch_size + max(batch_size // 2, 1))
    epochs = max(2, steps // -(-rows // batch_size))
    return {"source": source.rows(slice(0, rows)), "batch_size": batch_size, "epochs": epochs}


def _optimizer_of(record: dict[str, Any], model: KerasModel, run_dir: Path) -> Optimizer:
    """The optimizer that a record describes; Keras's own is the one that the model was compiled with."""
    config = dict(record)
    made = _CLASSES.get(str(config.pop("class", None)))
    rate = config.get("learning_rate")
    if made is None or not isinstance(rate, (float, int, dict)) or "keras_class" in config:
        compiled = read_compiled(model).optimizer
        if compiled is None:
            raise ConfigError(f"{run_dir}: its optimizer is Keras's own: let the model's function compile it")
        return interop.get(compiled)
    try:
        config["learning_rate"] = schedules.from_config(rate) if isinstance(rate, dict) else rate
        optimizer: Optimizer = made(**config)
    except (TypeError, ConfigError) as error:
        raise DataError(f"{run_dir}: the record's optimizer makes no sense ({error}): the run is damaged") from error
    return optimizer


def _table(record: dict[str, Any], key: str, run_dir: Path) -> dict[str, Any]:
    """Returns an entry of a record that holds entries itself; empty if it is left out.

    Raises:
        DataError: it holds something else.
    """
    found = record.get(key)
    if found is not None and not isinstance(found, dict):
        raise DataError(f"{run_dir}: the record's {key!r} makes no sense: the run is damaged")
    return found or {}


def _parts_of(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _check_data(run_dir: Path, about: dict[str, Any], train: Source) -> None:
    if about.get("fingerprint") != train.fingerprint:
        raise DataError(f"{run_dir} was trained on other data: give what it was trained on (its training split)")
