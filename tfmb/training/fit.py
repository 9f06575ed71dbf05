"""`tfmb.fit`: `keras.Model.fit` with our loop."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tfmb.backend import keras
from tfmb.config import DIVERGENCE_NAMES
from tfmb.data import Augmentation
from tfmb.data.source import any_numbers
from tfmb.distribution import is_chief, make_strategy, needs_static_shapes, steps_a_call
from tfmb.errors import ConfigError
from tfmb.optimizers import Optimizer
from tfmb.seeds import derive, seeded
from tfmb.training.agreement import of_first_worker
from tfmb.training.calls import drawn_seed
from tfmb.training.compiled import check_model, read_compiled
from tfmb.training.engine import optimizer_for, own_step_for
from tfmb.training.executions import steps_of_execution, whole_executions
from tfmb.training.fit_data import make_feed, validation_feed, verbose_level
from tfmb.training.inference import evaluate
from tfmb.training.keras_callbacks import terminates_on_nan
from tfmb.training.keras_data import refuse_own_order, warn_of_own_order
from tfmb.training.limits import limited_epochs, limited_steps
from tfmb.training.loop import Plan
from tfmb.training.own_methods import called_anywhere, has_own, scored_by_own, through_own
from tfmb.training.own_step import check_own_step, has_own_step, has_own_test_step, runs_own_step
from tfmb.training.parts import make_cut
from tfmb.training.placement import built_under
from tfmb.training.recipe import Recipe
from tfmb.training.run_dir import create_run_dir, open_run_dir
from tfmb.training.run_record import RUN_FILE, read_run
from tfmb.training.session import Session
from tfmb.workers import naming_lost_peers

__all__ = ["check_counts", "check_on_divergence", "fit"]


@called_anywhere
def fit(
    model: Any,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: str | int = "auto",
    callbacks: Sequence[Any] | None = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    shuffle: bool | str = True,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: int | list[int] = 1,
    *,
    optimizer: Any = None,
    loss: Any = None,
    metrics: Any = None,
    strategy: Any = "auto",
    replicas: int | None = None,
    seed: int | None = None,
    run_dir: str | Path | None = None,
    virtual_replicas: int | Literal["auto"] = "auto",
    micro_batch_size: int | None = None,
    augment: Augmentation | None = None,
    noise_scale: bool = False,
    jit_compile: bool | str = "auto",
    static_shapes: bool | None = None,
    prefetch: int | None = None,
    resume: bool = False,
    checkpoint_every: int = 100,
    keep_checkpoints: int = 2,
    allow_drift: bool = False,
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
        y: targets, where `x` is arrays; None where the model's loss is all its own (`add_loss`, `compute_loss`), and
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
        validation_freq: validates every so many epochs, or after the epochs listed (counted from 1).
        optimizer: one of `tfmb.optimizers`, a name, or a Keras optimizer; None for the compiled one. The rule that
            takes the place of a Keras SGD, RMSprop, Adam or AdamW works on that one's own state, so that a next
            training goes on with it, whoever makes it. So does a second call for the same model and one of ours.
        loss: as in `compile`; None for the compiled one.
        metrics: as in `compile`; None for the compiled ones.
        strategy: `"auto"`, `"one-device"`, `"mirrored"` or a `tf.distribute.Strategy`: see `tfmb.distribution`. A model
            that was built in the scope of a strategy is trained under that one by `"auto"`.
        replicas: how many devices.
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
        noise_scale: whether to measure the noise scale of the gradients, in examples, from those of the parts that
            batches are cut into: in the logs (NaN where it is undetermined), and in `run_dir` with its interval.
        jit_compile: what XLA compiles: nothing (False), the gradient of each part (True), the optimizer's `"update"`,
            each `"step"`, or each `"call"` of many steps (arrays on one CPU). `"auto"` tries these out before a long
            training of whole batches on one CPU, and keeps the answer in the cache and in `run_dir`; elsewhere it is
            nothing.
        static_shapes: whether every part of every batch has one shape, a smaller one filled up with rows that count
            for nothing, so that XLA compiles once. None is True on a TPU, which needs it, and False elsewhere.
        prefetch: batches that are read ahead where they are read from files, augmented, or taken to other devices: None
            for as many as come in the time of the longest wait for one, measured before a training of at least 100
            updates and kept like the answer on `jit_compile`. A dataset's own `prefetch` is not touched.
        resume: whether to go on with the run in `run_dir`, exactly where its last checkpoint was made, whatever ended
            it. Give the same arguments; where there is no run yet, one begins. A finished run trains nothing: the model
            gets its weights, the History is the run's. A dataset must be declared deterministic
            (`options.deterministic`); a generator, `PyDataset` or loader may give other batches the next time, and is
            refused. Several workers need a `run_dir` that all of them see.
        checkpoint_every: updates between two checkpoints in `run_dir`.
        keep_checkpoints: how many of the last ones stay, besides the best by validation loss.
        allow_drift: whether to go on though something differs from what the run began with.
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
    if has_own(model, "fit"):
        return through_own(model, "fit", fit, dict(locals()))
    _check_arguments(epochs, initial_epoch, batch_size, steps_per_epoch)
    check_counts(validation_steps=validation_steps, validation_batch_size=validation_batch_size)
    check_counts(checkpoint_every=checkpoint_every, keep_checkpoints=keep_checkpoints)
    epochs, steps_per_epoch = limited_epochs(epochs), limited_steps(steps_per_epoch, "steps_per_epoch")
    where = make_strategy(built_under(model, strategy, replicas), replicas)
    if run_dir is None and resume:
        raise ConfigError("resume=True needs run_dir")
    check_on_divergence(on_divergence, run_dir is not None)
    before = None
    if resume and run_dir is not None and (Path(run_dir).expanduser() / RUN_FILE).exists():
        before = read_run(Path(run_dir).expanduser())
    with naming_lost_peers(where):
        if seed is None:
            # A run that goes on draws too, so that the program's next random number is the one it was before.
            drawn = drawn_seed()
            seed = of_first_worker(drawn if before is None else int(before["config"]["seed"]), where)
        else:
            of_first_worker(0, where)  # waits: all have read the record, or that there is none, before one is written
        model = _built_model(model, where, seed)
    own_step = runs_own_step(model)
    if own_step:
        jit_compile = check_own_step(model, where, dict(locals()))
    recipe, ours = _recipe_and_optimizer(model, optimizer, loss, metrics, own_step)
    lets_diverge = on_divergence == "stop" and terminates_on_nan(callbacks)
    recipe = replace(recipe, noise_scale=noise_scale, lets_diverge=lets_diverge)
    if on_divergence == "restore" and not isinstance(ours.learning_rate, float):
        raise ConfigError(
            "on_divergence='restore' halves the rate, which a schedule or function decides: give a number"
        )
    # Nothing is read before this: what is refused here may be left to Keras.
    refuse_own_order(x, where, resume, on_divergence == "restore")
    if validation_data is not None or validation_split:
        check_model(model, "make_test_function")
    executed = steps_of_execution(model)
    with any_numbers(lets_diverge):
        feed, source, held_out = make_feed(
            x,
            y,
            sample_weight,
            class_weight,
            batch_size,
            seed=seed,
            shuffle=shuffle,
            steps_per_epoch=steps_per_epoch,
            initial_epoch=initial_epoch,
            validation_split=0.0 if validation_data is not None else validation_split,
            augmentation=augment,
            whole=has_own_step(model),
            executed=executed,
        )
        validation, scored = held_out if validation_data is None else validation_data, None
        if validation is not None:
            validation_steps = limited_steps(validation_steps, "validation_steps")
            size = validation_batch_size or batch_size
            if has_own(model, "evaluate"):
                scored = functools.partial(scored_by_own, model, evaluate, validation, size, validation_steps)
            validation = validation_feed(validation, size, validation_steps, has_own_test_step(model), executed)
    if any(type(each) is keras.callbacks.BackupAndRestore for each in keras.tree.flatten(callbacks or [])) and resume:
        raise ConfigError("BackupAndRestore and resume=True both go on with a run: leave the callback out")
    static = needs_static_shapes(where) if static_shapes is None else static_shapes
    cut = make_cut(where.num_replicas_in_sync, virtual_replicas, micro_batch_size, feed.batch_size, static)
    warn_of_own_order(feed, validation, run_dir, cut.parts)
    record = {
        "made_by": "tfmb.fit",
        "config": {
            "batch_size": batch_size,
            "epochs": epochs,
            "seed": seed,
            "shuffle": shuffle if shuffle == "batch" else bool(shuffle),
            "virtual_replicas": "auto" if cut.parts is None else cut.parts,
            "static_shapes": cut.static,
        },
        "data": None if source is None else {"examples": source.size, "fingerprint": source.fingerprint},
    }
    with contextlib.ExitStack() as stack:
        directory = _directory(run_dir, before is not None, is_chief(where), stack)
        session = Session(
            model=model,
            optimizer=ours,
            recipe=recipe,
            strategy=where,
            feed=feed,
            plan=Plan(
                epochs=epochs,
                initial_epoch=initial_epoch,
                steps_a_call=steps_a_call(where),
                on_divergence=on_divergence,
            ),
            validation=validation,
            validates=_schedule_of(validation_freq),
            scored=scored,
            run_dir=directory,
            record=record,
            verbose=verbose_level(verbose) if is_chief(where) else 0,
            callbacks=callbacks,
            params={"verbose": verbose, "epochs": epochs, "steps": steps_per_epoch or feed.steps},
            cut=cut,
            seed=seed,
            jit_compile=jit_compile,
            prefetch=prefetch,
            checkpoints=None if run_dir is None else Path(run_dir).expanduser(),
            checkpoint_every=checkpoint_every,
            keep=keep_checkpoints,
            resume=before is not None,
            allow_drift=allow_drift,
            identity={
                "config": {
                    "batch_size": batch_size,
                    "epochs": epochs,
                    "initial_epoch": initial_epoch,
                    "steps_per_epoch": whole_executions(steps_per_epoch, executed),
                    "seed": seed,
                    "shuffle": shuffle if shuffle == "batch" else bool(shuffle),
                    "virtual_replicas": cut.parts,
                    "static_shapes": cut.static,
                    "jit_compile": jit_compile,
                    "augment": None if augment is None else repr(augment),
                    **({"noise_scale": True} if noise_scale else {}),
                    "on_divergence": on_divergence,
                },
                "data": {"fingerprint": None if source is None else source.fingerprint},
            },
        )
        if before is not None and before.get("status") == "finished":
            return session.recall(before)
        history = session.run()
        session.finish(
            {key: values[-1] for key, values in history.history.items() if isinstance(values[-1], float)}, history
        )
        return history


def _directory(run_dir: Any, goes_on: bool, chief: bool, stack: contextlib.ExitStack) -> Path | None:
    """The run's directory, locked until the stack unwinds; None for a process that writes none."""
    if run_dir is None or not chief:
        return None
    directory, lock = open_run_dir(run_dir) if goes_on else create_run_dir(run_dir)
    stack.callback(lock.release)
    return directory


def _built_model(model: Any, strategy: Any, seed: int) -> Any:
    """The model itself, or what the user's function builds in the strategy's scope, with weights of the run's seed."""
    if not isinstance(model, keras.Model) and callable(model):
        with seeded(derive(seed, "weights")), strategy.scope():
            model = model()
    check_model(model)
    return model


def _recipe_and_optimizer(
    model: Any, optimizer: Any, loss: Any, metrics: Any, own_step: bool
) -> tuple[Recipe, Optimizer]:
    """What was given here, else what the model was compiled with."""
    compiled = read_compiled(model)
    recipe = Recipe(
        loss=compiled.loss if loss is None else loss,
        loss_weights=compiled.loss_weights if loss is None else None,
        metrics=compiled.metrics if metrics is None else metrics,
        weighted_metrics=compiled.weighted_metrics if metrics is None else None,
    )
    if own_step:
        return recipe, own_step_for(model)
    chosen = compiled.optimizer if optimizer is None else optimizer
    if chosen is None:
        raise ConfigError("there is no optimizer: compile the model, or give optimizer=...")
    return recipe, optimizer_for(model, chosen)


def _check_arguments(epochs: Any, initial_epoch: Any, batch_size: Any, steps_per_epoch: Any) -> None:
    check_counts(epochs=epochs, batch_size=batch_size, steps_per_epoch=steps_per_epoch)
    if epochs is None:
        raise ConfigError("epochs=None must be an integer of at least 1")
    if isinstance(initial_epoch, bool) or not isinstance(initial_epoch, int) or initial_epoch < 0:
        raise ConfigError(f"initial_epoch={initial_epoch!r} must be an integer of at least 0")


def check_on_divergence(on_divergence: Any, has_run_dir: bool) -> None:
    """Refuses an `on_divergence` that is none, or that has no checkpoints to go back to.

    Raises:
        ConfigError: so it is.
    """
    if on_divergence not in DIVERGENCE_NAMES:
        raise ConfigError(f"on_divergence={on_divergence!r} must be one of {', '.join(DIVERGENCE_NAMES)}")
    if on_divergence == "restore" and not has_run_dir:
        raise ConfigError("on_divergence=restore needs run_dir")


def check_counts(**counts: Any) -> None:
    """Refuses numbers that are no integers of at least 1; None is none.

    Args:
        **counts: by the name of the argument.

    Raises:
        ConfigError: one that is named.
    """
    for name, value in counts.items():
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and not (whole and value >= 1):
            raise ConfigError(f"{name}={value!r} must be an integer of at least 1")


def _schedule_of(validation_freq: Any) -> Callable[[int], bool]:
    """Epoch (from 0) -> whether `validation_freq` wants it scored."""
    if isinstance(validation_freq, list):  # and no tuple, as in Keras
        epochs = set(validation_freq)
        return lambda epoch: epoch + 1 in epochs
    check_counts(validation_freq=validation_freq)
    every = validation_freq or 1
    return lambda epoch: (epoch + 1) % every == 0
