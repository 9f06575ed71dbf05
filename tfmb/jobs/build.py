"""The parts of a run, made from its `TrainConfig`: data, model and optimizer, and the model's loss and metrics."""

import math
from dataclasses import dataclass
from typing import Any

from tfmb import models
from tfmb.backend import keras
from tfmb.data import Source, Splits, load
from tfmb.data.source import Normalization
from tfmb.environment.imports import load_function
from tfmb.errors import ConfigError
from tfmb.jobs.config import TrainConfig
from tfmb.optimizers import Optimizer, interop, schedules
from tfmb.training.keras_api.compile_args import LossAndMetrics, check_model, read_compiled
from tfmb.types import KerasModel

__all__ = ["Parts", "build_model", "loss_and_metrics_of", "make_optimizer", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a run, once its data and model are there."""

    splits: Splits
    train: Source
    validation: Source | None
    model: Any
    optimizer: Optimizer
    epochs: int
    batch_size: int


def prepare(config: TrainConfig) -> Parts:
    """Loads a configuration's data and builds its model and optimizer.

    Raises:
        ConfigError: an option that cannot be honoured with this data or model.
        DataError: the data is missing or damaged.
    """
    splits = load(config.dataset, config.mirror)
    train, validation = splits.train, None
    if config.validation_size:
        train, validation = splits.train.hold_out(config.validation_size)
    batch_size = train.size if config.batch_size == "full" else config.batch_size
    if batch_size > train.size:
        raise ConfigError(
            f"--batch-size {batch_size} is larger than the data ({train.size} examples): "
            f"give at most {train.size}, or full"
        )
    if config.augment is not None and train.image_shape is None:
        raise ConfigError(f"--augment needs images, which {splits.origin} are not: leave it out")
    shape = getattr(train.examples, "shape", None)
    model = build_model(
        config.model_name,
        None if shape is None else tuple(shape[1:]),
        train.num_classes,
        splits.normalization,
        seed=config.seed,
        dropout=config.dropout,
        precision=config.precision,
    )
    return Parts(
        splits=splits,
        train=train,
        validation=validation,
        model=model,
        optimizer=make_optimizer(config, model, train.size, config.epochs or splits.epochs, batch_size),
        epochs=config.epochs or splits.epochs,
        batch_size=batch_size,
    )


def build_model(
    model: str, input_shape: tuple[int, ...] | None, num_classes: int | None, normalization: Normalization | None,
    *, seed: int = 0, dropout: float | None = None, precision: str | None = None,
) -> Any:  # fmt: skip
    """Returns one of our models by name (with its preprocessing inside), or the model of the user's function.

    Args:
        model: `"cnn"`, `"mlp"` or `package.module:build`.
        input_shape: of one example, for our models.
        num_classes: the number of logits, for our models.
        normalization: of raw pixels, for our models; None for anything but images.
        seed: decides the initial weights.
        dropout: None for the model's own default.
        precision: the policy that its layers are made under, after which Keras's own setting is as it was; None leaves
            that.

    Raises:
        ConfigError: the data does not suit our models, or the user's function gives no Keras model.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(before if precision is None else precision)
    try:
        return _build(model, input_shape, num_classes, normalization, seed, dropout)
    finally:
        keras.config.set_dtype_policy(before)


def _build(model: str, input_shape: Any, num_classes: Any, normalization: Any, seed: int, dropout: float | None) -> Any:
    if model not in models.MODELS:
        keras.utils.set_random_seed(seed % 2**32)  # for what the user's layers draw from Keras's own generator
        built = load_function(model, "--model")()
        check_model(built)
        return built
    if input_shape is None or num_classes is None:
        raise ConfigError(
            f"--model {model} takes one array of examples with class labels: give --model module:function"
        )
    rate = {} if dropout is None else {"dropout": dropout}
    bare = models.MODELS[model](input_shape, num_classes, seed=seed, **rate)
    return models.with_preprocessing(bare, input_shape, normalization)


def make_optimizer(config: TrainConfig, model: KerasModel, examples: int, epochs: int, batch_size: int) -> Optimizer:
    """A configuration's optimizer, new, with its schedule over the whole run.

    Raises:
        ConfigError: options that contradict what the model was compiled with, or a warm-up as long as the run.
    """
    arguments = config.optimizer_arguments()
    compiled = read_compiled(model).optimizer if config.own_model else None
    if config.rule is None and compiled is not None:
        rated = {
            "learning_rate": config.learning_rate is not None,
            "schedule": config.schedule not in ("constant", "plateau"),
            "rate_scaling": config.rate_scaling is not None,
        }
        if idle := [name for name, is_given in rated.items() if is_given]:
            raise ConfigError(
                f"{config.model} is compiled with {type(compiled).__name__}, which would not use {', '.join(idle)}: "
                "leave these out, or give --optimizer to use another optimizer with them"
            )
        return interop.get(compiled)
    make = interop.OPTIMIZERS["adam" if config.rule is None else config.rule.name]
    rate = make(**arguments).learning_rate
    if config.base_batch_size is not None:
        rate = schedules.scale_rate(rate, batch_size, config.base_batch_size, config.scaling)
    updates = epochs * math.ceil(examples / batch_size)
    if config.warmup >= updates:
        raise ConfigError(
            f"--schedule {config.schedule}: the warm-up is as long as the run ({updates} updates): give less"
        )
    rest = updates - config.warmup
    schedule = schedules.over_run(config.schedule_name, rate, rest, max(rest // epochs, 1))
    if config.warmup:
        schedule = schedules.Warmup(
            schedules.Constant(schedule) if isinstance(schedule, float) else schedule, config.warmup
        )
    return make(**{**arguments, "learning_rate": schedule})


def loss_and_metrics_of(model: KerasModel, config: TrainConfig | None) -> LossAndMetrics:
    """Returns cross-entropy and accuracy for our models; for the user's (`config` None too), the compiled ones.

    Raises:
        ConfigError: the user's model is not compiled.
    """
    if config is not None and not config.own_model:
        dtype = "float64" if config.precision == "float64" else None  # Keras would compute the loss in 32 bits
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype=dtype)
        return LossAndMetrics(loss=loss, metrics=["accuracy"])
    compiled = read_compiled(model)
    if compiled.loss is None:
        raise ConfigError(f"the model {model.name!r} has no loss: let your function return it compiled")
    return LossAndMetrics(
        loss=compiled.loss,
        loss_weights=compiled.loss_weights,
        metrics=compiled.metrics,
        weighted_metrics=compiled.weighted_metrics,
    )
