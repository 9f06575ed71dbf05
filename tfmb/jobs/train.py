"""`tfmb train` without the command line: a `TrainConfig` in, a trained run on disk and its result out."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmb.backend import tf
from tfmb.choices import JitScope
from tfmb.data import Augmentation, Source
from tfmb.data.batches import READ_AHEAD, Order
from tfmb.distribution.strategy import describe, is_chief, is_on_cpu, make_strategy, needs_static_shapes, steps_a_call
from tfmb.environment.processor import available_cores
from tfmb.jobs.build import Parts, loss_and_metrics_of, prepare
from tfmb.jobs.config import TrainConfig
from tfmb.optimizers.schedules import Plateau
from tfmb.training.execution.jit_trial import parse_jit_compile
from tfmb.training.input.array_pipeline import ArrayPipeline
from tfmb.training.input.data_adapter import validation_pipeline
from tfmb.training.keras_api.compile_args import LossAndMetrics
from tfmb.training.loop.plan import TrainingPlan
from tfmb.training.scoring import Validation, evaluate
from tfmb.training.session import Session, Shown
from tfmb.training.spec import Saving, TrainSpec
from tfmb.training.step.partition import Partition, make_partition
from tfmb.training.step.spec import PlacedModel, StepSpec
from tfmb.types import KerasModel, Strategy

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
    allow_mismatch: bool = False,
    before_training: Callable[[str, float], None] = lambda compiled, seconds: None,
) -> dict[str, Any]:
    """Loads, builds, trains, scores the test split once, and writes the run.

    Args:
        config: the options of the run.
        make_run_dir: a name for the run (such as `mnist-cnn`) -> its new, empty directory.
        say: gets a line for the user now and then.
        verbose: 1 for progress on standard error, 0 for none.
        resume: the directory of a run that is to go on, in place of a new one.
        allow_mismatch: whether it may go on though something differs from what it began with.
        before_training: gets XLA's scope and the estimated seconds of the training, if a trial was made
            before; it may begin the run again in another process.

    Returns:
        The result: the entry `"result"` of `run.json`, with the run's directory (None for a worker that is not
        the chief, which writes nothing).

    Raises:
        ConfigError: an option that cannot be honoured with this data or model.
        DataError: the data is missing or damaged.
        DirectoryError: the run's directory cannot be used.
        DivergenceError: the loss became NaN or infinite.
        PeerLostError: another worker died, hangs or did not join.
    """
    started = time.perf_counter()
    strategy = make_strategy(config.strategy, config.devices)
    parts = prepare(config)
    partition = _partition(config, parts, strategy)
    record = _record(config, parts, partition)
    chief = is_chief(strategy)
    run_dir = None
    if chief:
        _say_what_is_trained(config, parts, strategy, say)
        run_dir = make_run_dir(f"{record['data']['name']}-{parts.model.name}") if resume is None else resume
    saving = Saving(
        # A worker that is not the chief keeps in step with it: it only reads.
        run_dir=run_dir or resume or Path(),
        writes=run_dir is not None,
        **config.checkpoints,
        resume=resume is not None,
        allow_mismatch=allow_mismatch,
    )
    order = Order(num_examples=parts.train.size, batch_size=parts.batch_size, seed=config.seed, shuffle=config.shuffle)
    augmentation = None if config.augment is None else Augmentation.parse(config.augment)
    scored = None if parts.validation is None else validation_pipeline(parts.validation, _SCORING_BATCH, None)
    spec = _spec(config, parts, partition, saving, steps_a_call(strategy))
    session = Session(
        model=parts.model,
        optimizer=parts.optimizer,
        strategy=strategy,
        pipeline=ArrayPipeline(parts.train, order, augmentation=augmentation),
        spec=spec,
        validation=None if scored is None else Validation(pipeline=scored),
        record=record,
        shown=Shown(verbose=verbose if chief else 0),
        before_training=before_training,
    )
    history = session.run()
    updates, rate = int(parts.optimizer.iterations.numpy()), session.meter.examples_per_second
    test = {} if parts.splits.test is None else score(parts.model, spec.step.loss_and_metrics, parts.splits.test)
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


def score(model: KerasModel, loss_and_metrics: LossAndMetrics, source: Source) -> dict[str, Any]:
    """Loss and metrics over every example of a source, on one device."""
    placed = PlacedModel(model=model, strategy=tf.distribute.get_strategy())
    return evaluate(placed, loss_and_metrics, validation_pipeline(source, _SCORING_BATCH, None))


def _partition(config: TrainConfig, parts: Parts, strategy: Strategy) -> Partition:
    virtual_replicas = "auto" if config.virtual_replicas is None else config.virtual_replicas
    static = config.pad_batches or needs_static_shapes(strategy)
    replicas = strategy.num_replicas_in_sync
    return make_partition(replicas, virtual_replicas, config.micro_batch_size, parts.batch_size, static)


def _spec(
    config: TrainConfig, parts: Parts, partition: Partition, saving: Saving, steps_a_call: int | None
) -> TrainSpec:
    """The specification of a run of a configuration."""
    pinned = config.deterministic
    return TrainSpec(
        step=StepSpec(
            loss_and_metrics=loss_and_metrics_of(parts.model, config),
            partition=partition,
            seed=config.seed,
            noise_scale=config.measure_noise_scale,
        ),
        plan=TrainingPlan(
            epochs=parts.epochs,
            log_every=config.log_every,
            plateau=Plateau(patience=2) if config.schedule_name == "plateau" else None,
            steps_a_call=_DETERMINISTIC_STEPS if pinned else steps_a_call,
            on_divergence=config.on_divergence,
        ),
        jit_scope=JitScope.NOTHING if pinned else parse_jit_compile(config.jit_compile),
        prefetch=READ_AHEAD if pinned else None,
        saving=saving,
        config={**config.identity(), "epochs": parts.epochs, "virtual_replicas": partition.virtual_replicas},
        data={"fingerprint": parts.train.fingerprint},
    )


def _say_what_is_trained(config: TrainConfig, parts: Parts, strategy: Strategy, say: Callable[[str], None]) -> None:
    held = "" if parts.validation is None else f", {parts.validation.size:,} for validation"
    test = "no test split" if parts.splits.test is None else f"{parts.splits.test.size:,} test examples"
    say(f"data: {parts.splits.origin}: {parts.train.size:,} train{held}, {test}")
    rate, about = parts.optimizer.learning_rate, describe(strategy)
    say(
        f"model: {parts.model.name}, {parts.model.count_params():,} parameters; {type(parts.optimizer).__name__}, "
        f"learning rate {f'{rate:g}' if isinstance(rate, float) else 'by schedule'}; batch {parts.batch_size:,}, "
        f"{parts.epochs} epochs; seed {config.seed}; on {', '.join(about['devices'])} ({about['name']})"
    )
    if is_on_cpu(strategy) and strategy.num_replicas_in_sync > available_cores():
        say(
            f"warning: {strategy.num_replicas_in_sync} devices share {available_cores()} core(s): each is traced and "
            "started by itself, and nothing gets faster; this is for tests"
        )


def _record(config: TrainConfig, parts: Parts, partition: Partition) -> dict[str, Any]:
    splits, train = parts.splits, parts.train
    normalization = None if config.own_model else splits.normalization
    shape = getattr(train.examples, "shape", None)
    return {
        "made_by": "tfmb train",
        "config": {**config.to_dict(), "epochs": parts.epochs},
        "data": {
            "name": config.dataset if config.own_data else _folder_of(train.name) or config.dataset,
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
        "virtual_replicas": "auto" if partition.virtual_replicas is None else partition.virtual_replicas,
    }


def _last_epoch(history: Any) -> dict[str, float]:
    """The last epoch's numbers, `val_...` and `train_...`."""
    last = {key: values[-1] for key, values in sorted(history.history.items()) if isinstance(values[-1], float)}
    return {key if key.startswith("val_") else f"train_{key}": value for key, value in last.items()}


def accuracy_of(logs: dict[str, Any]) -> Any:
    """Returns the accuracy among logs, by whichever name it goes; None if there is none."""
    return next((value for key, value in logs.items() if key.endswith(("accuracy", "acc"))), None)


def _folder_of(name: str) -> str:
    """Returns `mnist` for the source `mnist/train`, and the folder's name for one of files."""
    return name.rpartition("/")[0].rpartition("/")[2]
