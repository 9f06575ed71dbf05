"""`tfmb train` without the command line: a `TrainConfig` in, a trained run on disk and its result out."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfmb.backend import tf
from tfmb.config import TrainConfig
from tfmb.data import Source, read_ahead
from tfmb.data.augment import Augmentation
from tfmb.data.batches import Order
from tfmb.distribution import (
    describe,
    is_chief,
    is_on_cpu,
    make_strategy,
    needs_static_shapes,
    steps_a_call,
)
from tfmb.optimizers.schedules import Plateau
from tfmb.processor import available_cores
from tfmb.training import engine
from tfmb.training.feeds import ArrayFeed
from tfmb.training.fit_data import validation_feed
from tfmb.training.job_parts import Parts, prepare, recipe_of
from tfmb.training.loop import Plan
from tfmb.training.parts import make_cut
from tfmb.training.recipe import Recipe
from tfmb.training.session import Session

__all__ = ["accuracy_of", "score", "train_job"]

_SCORING_BATCH = 256
_DETERMINISTIC_STEPS = 10


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


def score(model: Any, recipe: Recipe, source: Source) -> dict[str, Any]:
    """Loss and metrics over every example of a source, on one device."""
    strategy = tf.distribute.get_strategy()
    return engine.evaluate(model, recipe, strategy, validation_feed(source, _SCORING_BATCH, None))


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
