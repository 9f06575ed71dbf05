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
from tfmb.training.keras_api.compile_args import check_model, read_compiled
from tfmb.training.keras_api.limits import limited_epochs, limited_steps
from tfmb.training.keras_api.loss_and_metrics import LossAndMetrics
from tfmb.training.keras_api.overridden_methods import called_anywhere, has_own, scored_by_own, through_own
from tfmb.training.keras_api.steps_per_execution import steps_of_execution
from tfmb.training.loop.plan import TrainingPlan
from tfmb.training.optimizer_of_model import optimizer_for, own_step_for
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

    The arguments up to `validation_freq` mean what they mean in `fit`. A batch that nothing cuts is trained by the
    objects that `compile` made; docs/moving.md says what is the same and what differs. Many updates run in one call;
    `steps_per_execution` decides which batches the callbacks see, and `jit_compile` of `compile` nothing. A batch
    larger than the data is one batch of all of it.

    Args:
        model: a `keras.Model`; or a function without arguments that builds one, which is then called in the
            strategy's scope (the model is the returned History's `model`).
        x: inputs: arrays, tensors (ragged and sparse ones too), pandas objects, SciPy's sparse matrices or lists
            `[n, ...]` of numbers or texts, in any list, tuple or dict, None for an optional input; or batches: a
            `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator, a PyTorch or Grain loader of `(x,)`, `(x, y)` or
            `(x, y, sample_weight)`; or a source of single such examples by number (`len(x)`, `x[i]`, such as
            `tfds.data_source` gives), which are read as they are needed.
        y: targets, where `x` is arrays; None if the model's loss is all its own (`add_loss`, `compute_loss`), and
            among several for an output without a loss.
        batch_size: examples an update, over all replicas; None is 32, or what makes `steps_per_epoch` of arrays.
        epochs: the number of the epoch to stop before.
        verbose: 0 for nothing, 1 or "auto" for progress, 2 for a line an epoch; on standard error. A notebook shows a
            line an epoch, and of one that lasts long more.
        callbacks: Keras callbacks, unmodified. Where one overrides a batch hook the loop makes no more steps a call
            than `steps_per_execution`.
        validation_split: the share of the last examples that is held out, before shuffling.
        validation_data: `(x, y)`, `(x, y, sample_weight)`, or anything alone that `x` may be.
        shuffle: whether each epoch has a new order; `"batch"` is one of the rows of each batch alone. A `PyDataset` of
            known length gives its batches in a new order, by Python's `random`, as in `fit`; other batches keep theirs.
        class_weight: class -> weight of its examples; where `x` makes batches, of a dataset or `PyDataset`.
        sample_weight: weights `[n]` of the examples, or one such array an output.
        initial_epoch: the number of the first epoch, counted from 0: its order of examples is the one it would have
            had in a longer run.
        steps_per_epoch: updates an epoch; None for one pass over the data.
        validation_steps: batches a validation; None for all.
        validation_batch_size: None for `batch_size`.
        validation_freq: epochs between two validations, or a list of the epochs to validate after (counted from 1).
        optimizer: one of `tfmb.optimizers`, a name, or a Keras optimizer; None for the compiled one. The rule that
            takes the place of a Keras SGD, RMSprop, Adam or AdamW works on that one's own state, so that a next
            training goes on with it, whoever makes it. So does a second call for the same model and one of ours.
        loss: as in `compile`; None for the compiled one.
        metrics: as in `compile`; None for the compiled ones.
        strategy: `"auto"`, `"one-device"`, `"mirrored"` or a `tf.distribute.Strategy`: see `tfmb.distribution`. A model
            that was built in the scope of a strategy is trained under that one by `"auto"`.
        devices: the number of devices.
        seed: decides the order of examples, and the initial weights where `model` is a function: of all that its
            initializers, NumPy and `keras.random` draw. Python's, NumPy's and Keras's generators are afterwards where
            they were. None draws one from Python's `random`, the first worker's for all.
        run_dir: a new directory for the run's record, logs and weights; None writes nothing. Of several workers the
            first one writes.
        virtual_replicas: V, a power of two: every batch is cut into V parts whose sums are added in one fixed tree, so
            that float32 weights have the same bits on every number of devices that divides V. `"auto"` is one part a
            device: the same answer, not to the bit.
        micro_batch_size: the most examples a part may have: gradient accumulation. It chooses `virtual_replicas`.
        augment: a `tfmb.data.Augmentation` of the training images.
        measure_noise_scale: whether to measure the noise scale of the gradients, in examples, from the gradients of the
            microbatches: in the logs (NaN if it is undetermined), and in `run_dir` with its interval.
        jit_compile: what XLA compiles: nothing (False), the gradient of each part (True), the optimizer's `"update"`,
            each `"step"`, or each `"call"` of many steps (arrays on one CPU). `"auto"` tries these out before a long
            training of whole batches on one CPU, and keeps the answer in the cache and in `run_dir`; elsewhere it is
            nothing.
        pad_batches: whether every part of every batch has one shape, a smaller one filled up with rows that count
            for nothing, so that XLA compiles once. None is True on a TPU, which needs it, and False elsewhere.
        prefetch: batches that are read ahead where they are read from files, augmented, or taken to other devices: None
            for as many as come in the time of the longest wait for one, measured before a training of at least 100
            updates and kept like the answer on `jit_compile`. A dataset's own `prefetch` stays as it was.
        resume: whether to go on with the run in `run_dir`, exactly where its last checkpoint was made, whatever ended
            it. Give the same arguments; if there is no run yet, one begins. A finished run trains nothing: the model
            gets its weights, the History is the run's. A dataset must be declared deterministic
            (`options.deterministic`); a generator, `PyDataset` or loader may give other batches the next time, and is
            refused. Several workers need a `run_dir` that all of them see.
        checkpoint_every: updates between two checkpoints in `run_dir`.
        keep_checkpoints: the number of last ones that stay, besides the best by validation loss.
        allow_mismatch: whether to go on though something differs from what the run began with.
        on_divergence: what to do about a loss or gradient that is not finite, whose update is never made: `"stop"`,
            `"skip"` the batch, or `"restore"` the last checkpoint and go on at half the rate. `"stop"` leaves it to a
            `keras.callbacks.TerminateOnNaN` among the callbacks: all is then trained on until that one ends it.

    Returns:
        A `keras.callbacks.History` with Keras's keys. The model holds the trained weights.

    Raises:
        ConfigError: an argument that cannot be honoured.
        DataError: data that makes no sense.
        DivergenceError: the loss became NaN or infinite; the model holds the weights before that.
        DirectoryError: `run_dir` is in use.
        PreemptedError: SIGTERM or SIGINT ended a run with a `run_dir`; it is saved.
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
    loss_and_metrics = LossAndMetrics(
        loss=compiled.loss if loss is None else loss,
        loss_weights=compiled.loss_weights if loss is None else None,
        metrics=compiled.metrics if metrics is None else metrics,
        weighted_metrics=compiled.weighted_metrics if metrics is None else None,
    )
    if own_step:
        return loss_and_metrics, own_step_for(model)
    chosen = compiled.optimizer if optimizer is None else optimizer
    if chosen is None:
        raise ConfigError("there is no optimizer: compile the model, or give optimizer=...")
    return loss_and_metrics, optimizer_for(model, chosen)
