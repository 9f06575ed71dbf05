"""`tfmb train` without the command line: a `TrainConfig` in, a trained run on disk and its result out."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfmb import models
from tfmb.backend import keras, tf
from tfmb.config import TrainConfig
from tfmb.data import Source, Splits, load, load_user_data, read_ahead
from tfmb.data.augment import Augmentation
from tfmb.data.batches import Order
from tfmb.data.source import Normalization
from tfmb.distribution import (
    describe,
    is_chief,
    is_on_cpu,
    make_strategy,
    needs_static_shapes,
    steps_a_call,
)
from tfmb.errors import ConfigError
from tfmb.imports import load_function
from tfmb.optimizers import Optimizer, interop, schedules
from tfmb.optimizers.schedules import Plateau
from tfmb.processor import available_cores
from tfmb.training import engine, prepared
from tfmb.training.compilation import Compiled, asked_for
from tfmb.training.compiled import check_model, read_compiled
from tfmb.training.feeds import ArrayFeed
from tfmb.training.fit_data import validation_feed
from tfmb.training.loop import Plan
from tfmb.training.parts import make_cut
from tfmb.training.placement import place
from tfmb.training.profiling import Profile, profile, seconds_of_update
from tfmb.training.recipe import Recipe
from tfmb.training.rows import RowsOfBatches, arrays_on_device
from tfmb.training.session import Session
from tfmb.training.step import Steps

__all__ = [
    "accuracy_of",
    "build_model",
    "load_splits",
    "make_optimizer",
    "prepare",
    "profile_job",
    "recipe_of",
    "score",
    "time_update",
    "train_job",
]

_SCORING_BATCH = 256
_DETERMINISTIC_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run is made of, once its data and model are there."""

    splits: Splits
    train: Source
    validation: Source | None
    model: Any
    optimizer: Optimizer
    epochs: int
    batch_size: int


def train_job(
    config: TrainConfig,
    make_run_dir: Callable[[str], Path],
    say: Callable[[str], None],
    verbose: int = 1,
    *,
    resume: Path | None = None,
    allow_drift: bool = False,
    before_training: Callable[[str, float], None] = lambda compiled, seconds: None,
) -> dict[str, Any]:
    """Loads, builds, trains, scores the test split once, and writes the run.

    Args:
        config: what to do.
        make_run_dir: a name for the run (such as `mnist-cnn`) -> its new, empty directory.
        say: gets a line for the user now and then.
        verbose: 1 for progress on standard error, 0 for none.
        resume: the directory of a run that shall go on, in place of a new one.
        allow_drift: whether it may go on though something differs from what it began with.
        before_training: told what XLA compiles and how many seconds the training is to take, where a trial was made
            before it; it may begin the run again in another process.

    Returns:
        The result: what `run.json` keeps under `"result"`, with the run's directory (None for a worker that is not
        the chief, which writes nothing).

    Raises:
        ConfigError: an option that cannot be honoured with this data or model.
        DataError: the data is missing or damaged.
        DirectoryError: the run's directory cannot be used.
        DivergenceError: the loss became NaN or infinite.
        PeerLostError: another worker died, hangs or did not join.
    """
    started = time.perf_counter()
    strategy = make_strategy(config.strategy, config.replicas)
    parts = prepare(config)
    virtual = "auto" if config.virtual_replicas is None else config.virtual_replicas
    static = config.static_shapes or needs_static_shapes(strategy)
    cut = make_cut(strategy.num_replicas_in_sync, virtual, config.micro_batch_size, parts.batch_size, static)
    record = _record(config, parts)
    chief = is_chief(strategy)
    run_dir = None
    if chief:
        say(f"data: {_describe_data(parts)}")
        say(f"model: {_describe_model(config, parts)}; on {_describe_strategy(strategy)}")
        if is_on_cpu(strategy) and strategy.num_replicas_in_sync > available_cores():
            say(
                f"warning: {strategy.num_replicas_in_sync} devices share {available_cores()} core(s): each is traced "
                "and started by itself, and nothing gets faster; this is for tests"
            )
        run_dir = make_run_dir(f"{record['data']['name']}-{parts.model.name}") if resume is None else resume
    order = Order(num_examples=parts.train.size, batch_size=parts.batch_size, seed=config.seed, shuffle=config.shuffle)
    recipe = replace(recipe_of(parts.model, config), noise_scale=config.noise_scale)
    session = Session(
        model=parts.model,
        optimizer=parts.optimizer,
        recipe=recipe,
        strategy=strategy,
        feed=ArrayFeed(
            parts.train, order, augmentation=None if config.augment is None else Augmentation.parse(config.augment)
        ),
        plan=Plan(
            epochs=parts.epochs,
            log_every=config.log_every,
            plateau=Plateau(patience=2) if config.schedule == "plateau" else None,
            steps_a_call=_DETERMINISTIC_STEPS if config.deterministic else steps_a_call(strategy),
            on_divergence=config.on_divergence,
        ),
        validation=None if parts.validation is None else validation_feed(parts.validation, _SCORING_BATCH, None),
        run_dir=run_dir,
        record={**record, "virtual_replicas": "auto" if cut.parts is None else cut.parts},
        verbose=verbose if chief else 0,
        cut=cut,
        seed=config.seed,
        jit_compile="nothing" if config.deterministic else config.jit_compile,
        prefetch=read_ahead.DEFAULT if config.deterministic and config.prefetch is None else config.prefetch,
        # A worker that is not the chief keeps in step with it: it only reads.
        checkpoints=run_dir or resume or Path(),
        checkpoint_every=config.checkpoint_every,
        keep=config.keep_checkpoints,
        resume=resume is not None,
        allow_drift=allow_drift,
        before_training=before_training,
        identity={
            "config": {**config.identity(), "epochs": parts.epochs, "virtual_replicas": cut.parts},
            "data": {"fingerprint": parts.train.fingerprint},
        },
    )
    history = session.run()
    updates, rate = int(parts.optimizer.iterations.numpy()), session.meter.examples_per_second
    test = {} if parts.splits.test is None else score(parts.model, recipe, parts.splits.test)
    result = {
        "dataset": record["data"]["name"],
        "dataset_origin": parts.splits.origin,
        "test_accuracy": accuracy_of(test),
        "test_loss": test.get("loss"),
        **_last_epoch(history),
        "examples_per_second": None if rate is None else round(rate, 1),
        "training_seconds": round(session.meter.seconds, 2),
        "tracing_seconds": round(session.meter.tracing_seconds, 2),
        "seconds": round(time.perf_counter() - started, 2),
        "updates": updates,
    }
    return {**result, "run_dir": run_dir and str(run_dir), "weights_sha256": session.finish(result, history)}


def profile_job(config: TrainConfig) -> Profile:
    """Times the parts of an update of a configuration's model on its data: see `profiling`.

    Raises:
        ConfigError: an option that cannot be honoured with this data or model.
        DataError: the data is missing or damaged.
    """
    return profile(*_timed(config, Compiled.NOTHING))


def time_update(config: TrainConfig) -> float:
    """Seconds of an update of a configuration, with what its `jit_compile` names compiled; `"auto"` is nothing.

    Raises:
        ConfigError: an option that cannot be honoured with this data or model.
        DataError: the data is missing or damaged.
    """
    return seconds_of_update(*_timed(config, asked_for(config.jit_compile) or Compiled.NOTHING))


def _timed(config: TrainConfig, compiled: Compiled) -> tuple[Steps, RowsOfBatches]:
    """The steps of a configuration and its batches, to be timed."""
    strategy = make_strategy(config.strategy, config.replicas)
    parts = prepare(config)
    order = Order(num_examples=parts.train.size, batch_size=parts.batch_size, seed=config.seed)
    feed = ArrayFeed(parts.train, order)
    batches = RowsOfBatches(arrays_on_device(parts.train), order)
    placed = place(parts.model, strategy, feed.example)
    recipe = recipe_of(parts.model, config)
    return prepared.steps_of(placed, parts.optimizer, recipe, strategy, compiled), batches


def load_splits(dataset: str, data: str | None, mirror: str | None) -> Splits:
    """The user's `--data module:load`, or else the dataset of that name."""
    if data and dataset != "auto":
        raise ConfigError(f"--data {data} and --dataset {dataset!r} cannot both be given")
    if data and mirror:
        raise ConfigError(f"--mirror {mirror} holds files of TFDS, and --data {data} needs none: leave it out")
    return load_user_data(data) if data else load(dataset, mirror)


def build_model(
    model: str, input_shape: tuple[int, ...] | None, num_classes: int | None, normalization: Normalization | None,
    *, seed: int = 0, dropout: float | None = None, precision: str | None = None,
) -> Any:  # fmt: skip
    """One of our models by name (with its preprocessing inside), or what the user's function builds.

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


def recipe_of(model: Any, config: TrainConfig | None) -> Recipe:
    """Cross-entropy and accuracy for our models; for the user's (`config` None too), what it was compiled with.

    Raises:
        ConfigError: the user's model is not compiled.
    """
    if config is not None and not config.own_model:
        dtype = "float64" if config.precision == "float64" else None  # Keras would compute the loss in 32 bits
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype=dtype)
        return Recipe(loss=loss, metrics=["accuracy"])
    compiled = read_compiled(model)
    if compiled.loss is None:
        raise ConfigError(f"the model {model.name!r} has no loss: let your function return it compiled")
    return Recipe(
        loss=compiled.loss,
        loss_weights=compiled.loss_weights,
        metrics=compiled.metrics,
        weighted_metrics=compiled.weighted_metrics,
    )


def score(model: Any, recipe: Recipe, source: Source) -> dict[str, Any]:
    """Loss and metrics over every example of a source, on one device."""
    strategy = tf.distribute.get_strategy()
    return engine.evaluate(model, recipe, strategy, validation_feed(source, _SCORING_BATCH, None))


def prepare(config: TrainConfig) -> Parts:
    """Loads a configuration's data and builds its model and optimizer.

    Raises:
        ConfigError: an option that cannot be honoured with this data or model.
        DataError: the data is missing or damaged.
    """
    splits = load_splits(config.dataset, config.data, config.mirror)
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
        config.model,
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


def make_optimizer(config: TrainConfig, model: Any, examples: int, epochs: int, batch_size: int) -> Optimizer:
    """A configuration's optimizer, new, with its schedule over the whole run.

    Raises:
        ConfigError: options that contradict what the model was compiled with, or a warm-up as long as the run.
    """
    arguments = config.optimizer_arguments()
    compiled = read_compiled(model).optimizer if config.own_model else None
    if config.optimizer is None and compiled is not None:
        rated: dict[str, Any] = {"warmup": config.warmup, "base_batch_size": config.base_batch_size}
        if config.schedule not in ("constant", "plateau"):
            rated["schedule"] = config.schedule
        if idle := [*arguments, *(name for name, value in rated.items() if value)]:
            raise ConfigError(
                f"{config.model} is compiled with {type(compiled).__name__}: give --optimizer to use another with "
                f"{', '.join(idle)}, or leave these out"
            )
        return interop.get(compiled)
    make = interop.OPTIMIZERS[config.optimizer or "adam"]
    rate = make(**arguments).learning_rate
    if config.base_batch_size is not None:
        rate = schedules.scale_rate(rate, batch_size, config.base_batch_size, config.rate_scaling)
    updates = epochs * math.ceil(examples / batch_size)
    if config.warmup >= updates:
        raise ConfigError(f"--warmup {config.warmup} is as long as the run ({updates} updates): give less")
    rest = updates - config.warmup
    schedule = schedules.over_run(config.schedule, rate, rest, max(rest // epochs, 1))
    if config.warmup:
        schedule = schedules.Warmup(
            schedules.Constant(schedule) if isinstance(schedule, float) else schedule, config.warmup
        )
    return make(**{**arguments, "learning_rate": schedule})


def _record(config: TrainConfig, parts: Parts) -> dict[str, Any]:
    splits, train = parts.splits, parts.train
    normalization = None if config.own_model else splits.normalization
    shape = getattr(train.examples, "shape", None)
    return {
        "made_by": "tfmb train",
        "config": {**config.to_dict(), "epochs": parts.epochs},
        "data": {
            "name": config.data or train.name.rpartition("/")[0].rpartition("/")[2] or config.dataset,
            "origin": splits.origin,
            "fingerprint": train.fingerprint,
            "train_examples": train.size,
            "validation_examples": 0 if parts.validation is None else parts.validation.size,
            "test_examples": 0 if splits.test is None else splits.test.size,
            "test_fingerprint": None if splits.test is None else splits.test.fingerprint,
            "num_classes": train.num_classes,
        },
        "model": {
            "reference": config.model,
            "input_shape": None if shape is None else list(shape[1:]),
            "num_classes": train.num_classes,
            "normalization": None if normalization is None else vars(normalization),
        },
    }


def _describe_data(parts: Parts) -> str:
    held = "" if parts.validation is None else f", {parts.validation.size:,} for validation"
    test = "no test split" if parts.splits.test is None else f"{parts.splits.test.size:,} test examples"
    return f"{parts.splits.origin}: {parts.train.size:,} train{held}, {test}"


def _describe_model(config: TrainConfig, parts: Parts) -> str:
    rate = parts.optimizer.learning_rate
    shown = f"{rate:g}" if isinstance(rate, float) else "by schedule"
    return (
        f"{parts.model.name}, {parts.model.count_params():,} parameters; {type(parts.optimizer).__name__}, "
        f"learning rate {shown}; batch {parts.batch_size:,}, {parts.epochs} epochs; seed {config.seed}"
    )


def _describe_strategy(strategy: Any) -> str:
    about = describe(strategy)
    return f"{', '.join(about['devices'])} ({about['name']})"


def _last_epoch(history: Any) -> dict[str, float]:
    """The last epoch's numbers, `val_...` and `train_...`."""
    last = {key: values[-1] for key, values in sorted(history.history.items()) if isinstance(values[-1], float)}
    return {key if key.startswith("val_") else f"train_{key}": value for key, value in last.items()}


def accuracy_of(logs: dict[str, Any]) -> Any:
    """The accuracy among logs, by whichever name it goes; None where there is none."""
    return next((value for key, value in logs.items() if key.endswith(("accuracy", "acc"))), None)
