"""`tfmb.fit`: `keras.Model.fit` with our loop."""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tfmb.backend import keras
from tfmb.data import Augmentation
from tfmb.data.source import any_numbers
from tfmb.distribution.multi_worker import naming_lost_peers
from tfmb.distribution.strategy import is_chief, make_strategy, steps_a_call
from tfmb.errors import ConfigError
from tfmb.optimizers import Optimizer
from tfmb.optimizers.interop import optimizer_for, own_step_for
from tfmb.runs.run_dir import create_run_dir, open_run_dir
from tfmb.seeds import derive, seeded
from tfmb.training.callbacks.fit_callbacks import terminates_on_nan
from tfmb.training.execution.jit_trial import parse_jit_compile
from tfmb.training.execution.placement import built_under
from tfmb.training.fit_arguments import (
    agreed_seed,
    check_arguments,
    check_restore,
    config_of,
    partition_of,
    record_before,
    saving_of,
    schedule_of,
    shown_of,
)
from tfmb.training.inference import evaluate
from tfmb.training.input.data_adapter import TrainingData, make_pipeline, validation_pipeline
from tfmb.training.input.keras_batches import refuse_own_order, warn_of_own_order
from tfmb.training.keras_api.compile_args import LossAndMetrics, check_model, read_compiled
from tfmb.training.keras_api.limits import limited_epochs, limited_steps, steps_of_execution
from tfmb.training.keras_api.overridden_methods import called_anywhere, has_own, scored_by_own, through_own
from tfmb.training.loop.plan import TrainingPlan
from tfmb.training.scoring import Validation
from tfmb.training.session import Session
from tfmb.training.spec import TrainSpec
from tfmb.training.step.own_step import check_own_step, has_own_step, has_own_test_step, runs_own_step
from tfmb.training.step.spec import StepSpec
from tfmb.types import Data, KerasModel, Strategy

__all__ = ["fit"]


@called_anywhere
def fit(
    model: KerasModel,
    x: Data = None,
    y: Data = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: str | int = "auto",
    callbacks: Sequence[Any] | None = None,
    validation_split: float = 0.0,
    validation_data: Data = None,
    shuffle: bool | str = True,
    class_weight: dict[int, float] | None = None,
    sample_weight: Data = None,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: int | list[int] = 1,
    *,
    optimizer: Any = None,
    loss: Any = None,
    metrics: Any = None,
    strategy: Strategy = "auto",
    devices: int | None = None,
    seed: int | None = None,
    run_dir: str | Path | None = None,
    virtual_replicas: int | Literal["auto"] = "auto",
    micro_batch_size: int | None = None,
    augment: Augmentation | None = None,
    measure_noise_scale: bool = False,
    jit_compile: bool | str = "auto",
    pad_batches: bool | None = None,
    prefetch: int | None = None,
    resume: bool = False,
    checkpoint_every: int = 100,
    keep_checkpoints: int = 2,
    allow_mismatch: bool = False,
    on_divergence: Literal["stop", "skip", "restore"] = "stop",
) -> Any:
    """Trains a Keras model: `keras.Model.fit` with the model as its first argument.

    The arguments up to `validation_freq` mean what they mean in `fit`. A whole batch on one device is trained by the
    objects that `compile` made; docs/moving.md says what is the same and what differs. Many updates run in one call.
    `steps_per_execution` decides which batches the callbacks see. `jit_compile` of `compile` decides nothing. A batch
    size above the size of the data gives one batch of all of it.

    Args:
        model: a `keras.Model`, or a function without arguments that builds one. The function is called in the
            strategy's scope, and its model is the `model` of the returned History.
        x: the inputs. They are one of these:
            arrays `[n, ...]` of numbers or texts, tensors (ragged and sparse ones too), pandas objects, SciPy's sparse
            matrices or lists, in any list, tuple or dict, with None for an optional input;
            batches `(x,)`, `(x, y)` or `(x, y, sample_weight)` from a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
            generator, or a PyTorch or Grain loader;
            a source that gives single such examples by number (`len(x)`, `x[i]`), such as `tfds.data_source`. They are
            read as they are needed.
        y: the targets, where `x` is arrays. None where the model's loss is all its own (`add_loss`, `compute_loss`).
            Among several targets, None stands for an output without a loss.
        batch_size: examples per update, over all replicas. None is 32, or with `steps_per_epoch` the size that makes
            this many batches of the arrays.
        epochs: the number of the epoch to stop before, counted from 0.
        verbose: 0 shows nothing, 1 or "auto" shows progress, 2 shows a line per epoch. All go to standard error. A
            notebook shows a line per epoch, and more lines during a long epoch.
        callbacks: Keras callbacks, unmodified. If one overrides a batch hook, the loop makes at most
            `steps_per_execution` steps per call.
        validation_split: the share of the last examples to hold out, before shuffling.
        validation_data: `(x, y)`, `(x, y, sample_weight)`, or anything that `x` may be, alone.
        shuffle: whether each epoch has a new order. `"batch"` shuffles the rows of each batch alone. A `PyDataset` of
            known length gives its batches in a new order, by Python's `random`, as in `fit`. Other batches keep theirs.
        class_weight: a dict from class to the weight of its examples. If `x` makes batches, it must be a dataset or a
            `PyDataset`.
        sample_weight: weights `[n]` of the examples, or one such array per output.
        initial_epoch: the number of the first epoch, counted from 0. Its order of examples is the one that it has in a
            longer run.
        steps_per_epoch: updates per epoch; None for one pass over the data.
        validation_steps: batches per validation; None for all.
        validation_batch_size: examples per batch of a validation; None for `batch_size`.
        validation_freq: the number of epochs from one validation to the next, or a list of the epochs (counted from 1)
            that a validation follows.
        optimizer: one of `tfmb.optimizers`, a name, or a Keras optimizer; None for the compiled one. Our rules take the
            place of Keras's SGD, RMSprop, Adam and AdamW. They work on the Keras optimizer's own state, so that the
            next training goes on with it, by tfmb or by Keras. One of our optimizers also keeps its state for a second
            call with the same model.
        loss: as in `compile`; None for the compiled one.
        metrics: as in `compile`; None for the compiled ones.
        strategy: `"auto"`, `"one-device"`, `"mirrored"` or a `tf.distribute.Strategy`: see `tfmb.distribution`. With
            `"auto"`, a model that was built in the scope of a strategy is trained under that strategy.
        devices: the number of devices.
        seed: decides the order of examples. If `model` is a function, it also decides the initial weights: everything
            that its initializers, NumPy and `keras.random` draw. The generators of Python, NumPy and Keras are put back
            afterwards. None draws a seed from Python's `random`; all workers take the one of the first worker.
        run_dir: a new directory for the run's record, logs and weights; None writes nothing. If there are several
            workers, the first one writes.
        virtual_replicas: V, the number of shards in which each batch is always summed, a power of two: float32 weights
            have the same bits on every number of devices that divides V. The sums of the shards are added in one fixed
            tree. BatchNormalization works on each shard. `"auto"` is one shard per device: the answer is the same on
            any number of devices, but not to the bit.
        micro_batch_size: gradient accumulation: the most examples that a shard may have, and so the most that a device
            has in memory at once. It chooses `virtual_replicas`.
        augment: a `tfmb.data.Augmentation` of the training images.
        measure_noise_scale: whether to measure the noise scale of the gradients, in examples, from the gradients of the
            shards. It is in the logs (NaN if it is undetermined), and in `run_dir` with its interval.
        jit_compile: the work that XLA compiles: nothing (False), the gradient of each shard (True), the optimizer's
            `"update"`, each `"step"`, or each `"call"` of many steps (arrays on one CPU). `"auto"` tries these out
            before a long training of whole batches on one CPU, and keeps the answer in the cache and in `run_dir`.
            Elsewhere `"auto"` compiles nothing.
        pad_batches: whether all shards of all batches have one shape, so that XLA compiles once. A smaller shard is
            filled up with rows that count for nothing. None is True on a TPU, which needs it, and False elsewhere.
        prefetch: the number of batches to read ahead, where batches are read from files, augmented, or taken to other
            devices. None chooses as many as come in the time of the longest wait for one. This is measured before a
            training of at least 100 updates, and kept like the answer on `jit_compile`. A dataset's own `prefetch` is
            not touched.
        resume: whether to go on with the run in `run_dir`, exactly where its last checkpoint was made, whatever ended
            it. Give the same arguments. If there is no run yet, one begins. A finished run trains nothing: the model
            gets the run's weights, and the History is the run's. A dataset must be declared deterministic
            (`options.deterministic`). A generator, `PyDataset` or loader is refused, because it may give other batches
            the next time. Several workers need a `run_dir` that all of them see.
        checkpoint_every: the number of updates between two checkpoints in `run_dir`.
        keep_checkpoints: the number of newest checkpoints to keep. The best one by validation loss is kept too.
        allow_mismatch: whether to go on even if something differs from what the run began with.
        on_divergence: what to do about a loss or gradient that is not finite. Its update is never made. `"stop"` ends
            the training, `"skip"` leaves the batch out, `"restore"` goes back to the last checkpoint and on at half the
            rate. If there is a `keras.callbacks.TerminateOnNaN` among the callbacks, `"stop"` trains on until that
            callback ends the training.

    Returns:
        A `keras.callbacks.History` with Keras's keys. The model holds the trained weights.

    Raises:
        ConfigError: an argument that cannot be honoured.
        DataError: data that makes no sense.
        DivergenceError: the loss became NaN or infinite; the model holds the weights before that.
        DirectoryError: `run_dir` is in use.
        PreemptedError: SIGTERM or SIGINT ended a run with a `run_dir`; the run is saved.
        StorageError: a checkpoint could not be written.
        PeerLostError: another worker died or hangs.

    Example:
        >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        >>> history = tfmb.fit(model, x, y, batch_size=64, epochs=2, validation_split=0.1)
        >>> sorted(history.history)
        ['accuracy', 'loss', 'val_accuracy', 'val_loss']
    """
    given = dict(locals())
    if has_own(model, "fit"):
        return through_own(model, "fit", fit, given)
    check_arguments(given)
    epochs, steps_per_epoch = limited_epochs(epochs), limited_steps(steps_per_epoch, "steps_per_epoch")
    where = make_strategy(built_under(model, strategy, devices), devices)
    before = record_before(run_dir) if resume else None
    with naming_lost_peers(where):
        seed = agreed_seed(seed, before, where)
        model = _built_model(model, where, seed)
    if own_step := runs_own_step(model):
        jit_compile = check_own_step(model, where, {**given, "jit_compile": jit_compile})
    loss_and_metrics, ours = _losses_and_optimizer(model, optimizer, loss, metrics, own_step)
    check_restore(on_divergence, ours)
    # Nothing is read before this: what is refused here may be left to Keras.
    refuse_own_order(x, where, resume, on_divergence == "restore")
    if validation_data is not None or validation_split:
        check_model(model, "make_test_function")
    lets_diverge = on_divergence == "stop" and terminates_on_nan(callbacks)
    with any_numbers(lets_diverge):
        data = TrainingData(
            x, y, sample_weight, class_weight, batch_size, shuffle, steps_per_epoch, initial_epoch,
            0.0 if validation_data is not None else validation_split, augment,
        )  # fmt: skip
        pipeline, source, held_out = make_pipeline(data, seed, has_own_step(model), steps_of_execution(model))
        scored = held_out if validation_data is None else validation_data
        size = validation_batch_size or batch_size
        validation = None if scored is None else _validation(model, scored, size, validation_steps, validation_freq)
    partition = partition_of(given, where, pipeline.batch_size)
    warn_of_own_order(
        pipeline, None if validation is None else validation.pipeline, run_dir, partition.virtual_replicas
    )
    resolved = {"epochs": epochs, "steps_per_epoch": steps_per_epoch, "seed": seed, "jit_compile": jit_compile}
    step = StepSpec(
        loss_and_metrics=loss_and_metrics, partition=partition, seed=seed, noise_scale=measure_noise_scale,
        lets_diverge=lets_diverge,
    )  # fmt: skip
    spec = TrainSpec(
        step=step,
        plan=TrainingPlan(
            epochs=epochs, initial_epoch=initial_epoch, steps_a_call=steps_a_call(where), on_divergence=on_divergence
        ),
        jit_scope=parse_jit_compile(jit_compile),
        prefetch=prefetch,
        saving=saving_of(given, before is not None, is_chief(where)),
        config=config_of({**given, **resolved}, partition, steps_of_execution(model)),
        data={"fingerprint": None if source is None else source.fingerprint},
    )
    about = None if source is None else {"examples": source.size, "fingerprint": source.fingerprint}
    session = Session(
        model=model,
        optimizer=ours,
        strategy=where,
        pipeline=pipeline,
        spec=spec,
        validation=validation,
        record={"made_by": "tfmb.fit", "config": spec.config, "data": about},
        shown=shown_of({**given, **resolved}, pipeline.steps, is_chief(where)),
    )
    return _trained(session, before)


def _trained(session: Session, before: dict[str, Any] | None) -> Any:
    """Trains in the run's directory, locked; or recalls the result of a finished run."""
    with contextlib.ExitStack() as stack:
        folder = session.spec.saving.written
        if folder is not None:
            _, lock = create_run_dir(folder) if before is None else open_run_dir(folder)
            stack.callback(lock.release)
        if before is not None and before.get("status") == "finished":
            return session.recall(before)
        history = session.run()
        last = {key: values[-1] for key, values in history.history.items()}
        session.finish({key: value for key, value in last.items() if isinstance(value, float)}, history)
        return history


def _validation(model: KerasModel, data: Data, batch_size: int | None, steps: int | None, freq: Any) -> Validation:
    """Returns the data to score at the end of epochs, by the model's own `evaluate` if it has one."""
    steps, scored = limited_steps(steps, "validation_steps"), None
    if has_own(model, "evaluate"):
        scored = functools.partial(scored_by_own, model, evaluate, data, batch_size, steps)
    pipeline = validation_pipeline(data, batch_size, steps, has_own_test_step(model), steps_of_execution(model))
    return Validation(pipeline=pipeline, validates=schedule_of(freq), scored=scored)


def _built_model(model: KerasModel, strategy: Strategy, seed: int) -> Any:
    """Returns the model itself, or the user's function's, built in the strategy's scope with the run's seed."""
    if not isinstance(model, keras.Model) and callable(model):
        with seeded(derive(seed, "weights")), strategy.scope():
            model = model()
    check_model(model)
    return model


def _losses_and_optimizer(
    model: KerasModel, optimizer: Any, loss: Any, metrics: Any, own_step: bool
) -> tuple[LossAndMetrics, Optimizer]:
    """Returns the loss, metrics and optimizer that were given here, else those of `compile`."""
    compiled = read_compiled(model)
    loss_and_metrics = compiled.with_given(loss, metrics)
    if own_step:
        return loss_and_metrics, own_step_for(model)
    chosen = compiled.optimizer if optimizer is None else optimizer
    if chosen is None:
        raise ConfigError("there is no optimizer: compile the model, or give optimizer=...")
    return loss_and_metrics, optimizer_for(model, chosen)
