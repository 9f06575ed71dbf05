"""`tfmb.tune`: a search over batch size, learning rate and a user's own choices, in one call."""

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmb.choices import check_counts
from tfmb.data.batches import Order
from tfmb.distribution.strategy import make_local_strategy
from tfmb.environment.old_names import refusing_old_names
from tfmb.environment.requirements import PAGE_MODULES, need_folder, need_modules
from tfmb.errors import ConfigError
from tfmb.training.input.array_pipeline import ArrayPipeline
from tfmb.types import Data, Strategy

from .arguments import HELD_OUT, build_of, check_handed_over, epochs_of, objective_of, refuse_unknown, sources_of
from .budget import Budget
from .plan import SearchPlan
from .records import SearchRecord
from .result import SearchResult
from .run_search import search_in
from .space import Space
from .trials.callbacks import callbacks_of
from .trials.trial import SearchTask

__all__ = ["tune"]


@refusing_old_names
def tune(
    build: Callable[[Any], Any],
    x: Data,
    y: Data = None,
    *,
    sample_weight: Data = None,
    class_weight: dict[int, float] | None = None,
    validation_data: Data = None,
    validation_split: float = HELD_OUT,
    folds: int | None = None,
    callbacks: Any = None,
    objective: Any = "val_loss",
    max_trials: int = 10,
    oracle: str = "bayesian",
    batch_size: Any = (16, 1024),
    learning_rate: Any = (1e-4, 1e-1),
    executions_per_trial: int = 1,
    epochs: Any = 1,
    budget: Budget | None = None,
    pruning: bool = False,
    timeout: float | None = None,
    max_model_size: int | None = None,
    loss: Any = None,
    metrics: Any = None,
    strategy: Strategy = "auto",
    devices: int | None = None,
    run_dir: str | Path | None = None,
    overwrite: bool = False,
    seed: int | None = None,
    workers: int | None = None,
    executor: Any = None,
    round_size: int | None = None,
    max_failures: int = 3,
    watch: Callable[[SearchRecord], None] = lambda record: None,
    **space: Any,
) -> SearchResult:
    """Searches for the batch size, the learning rate and the values that `build` asks for that train a model best.

    Args:
        build: a function that takes `keras_tuner.HyperParameters` and returns a Keras model, or a `HyperModel`. It may
            ask for other choices in each trial. If it compiles the model with an optimizer, that one is used, and no
            rate is searched. `model.compile(None, loss=...)` leaves the optimizer to the search.
        x: examples, as in `tfmb.fit`, also a source that gives them by number; or a finite `tf.data.Dataset`. The
            search batches its examples itself.
        y: targets.
        sample_weight: a weight for each example, or None.
        class_weight: a weight for the examples of each class, or None; validation is not weighted.
        validation_data: what trials are compared on: `(x, y)`, `(x, y, sample_weight)`, a dataset or a source; None
            holds out `validation_split` of the examples.
        validation_split: the share of the examples to hold out. It is drawn once, the same for every seed.
        folds: the number of folds of a cross-validation: a trial is trained once for each, without that fold, and
            compared on it. The metrics are the mean. The seed decides which examples a fold has.
        callbacks: Keras callbacks. Each training of a trial gets deep copies, which see it as in `tfmb.fit`. A callback
            may end the trial, such as `EarlyStopping`. A trial is validated after each epoch, and its best one counts.
            TensorBoard, ModelCheckpoint and CSVLogger write into a folder `TRIAL/executionN` within theirs.
        objective: a metric (`val_loss`, `max:val_mine`, a `keras_tuner.Objective`), or the effort to reach a value:
            `seconds:val_accuracy>=0.98`, also `examples:` and `updates:`. A trial that misses the value is censored: it
            is worse than every trial that reached it, and the further it was off, the worse.
        max_trials: the largest number of trials.
        oracle: `bayesian`, `random`, `grid` or `hyperband`: Keras Tuner's; or `tpe`: Optuna's.
        batch_size: a range `(low, high)` (searched in powers of two), a list, or one value.
        learning_rate: a range `(low, high)` (searched on a logarithmic scale), a list, or one value.
        executions_per_trial: trainings per trial, each with its own seed. Their metrics are averaged.
        epochs: the number of passes over the data that a trial may spend, whatever its batch size. A range or a list
            is searched.
        budget: in place of `epochs`, a `Budget` of examples, updates or seconds.
        pruning: whether to stop trials early that do worse than others, by asynchronous successive halving.
        timeout: seconds after which no further trial begins; None for no limit.
        max_model_size: the most parameters of a model. A trial with more is recorded as failed; None for no limit.
        loss: for a model that is not compiled.
        metrics: for a model that is not compiled.
        strategy: as in `tfmb.fit`.
        devices: as in `tfmb.fit`.
        run_dir: a directory for the search. The same call with the same directory goes on with a search that was
            stopped, and repeats no trial. None keeps nothing.
        overwrite: whether a search that is in `run_dir` is removed first.
        seed: decides the values that are tried, initial weights and orders of examples; None draws a seed.
        workers: the number of trials to run at the same time, each in a process of this machine with its share of the
            cores or GPUs. None or 1 runs the trials in this process. With an `executor`: the number of tasks that it
            gets at the same time; None for its own number of workers.
        executor: where to run the trials: `"dask:ADDRESS"`, `"ray:ADDRESS"`, a Dask `Client`, the module `ray`, or an
            object with `submit(fn, *args)` that returns a future, such as submitit's executor for Slurm. Workers need
            the same versions. A `build`, `loss` or `metrics` that cannot be imported there is handed to them by value.
            A slice whose worker died is done again, at most three times.
        round_size: for an oracle that learns from trials and several workers: the number of trials that are chosen
            before any of them is heard. Equal rounds give equal trials on every executor. None chooses a trial
            whenever a worker is free, so that trials depend on which worker is faster.
        max_failures: the number of trials in a row that may fail (out of memory, an error in `build`, a worker that
            died) before the search ends. The same call goes on past them.
        watch: a function that gets the record after each trial.
        **space: see `tfmb.tuning.space.Space`: `optimizer`, `momentum`, `weight_decay`, `schedule`, `augment`, ...

    Returns:
        The result: `best`, `trials`, `best_model()`.

    Raises:
        ConfigError: arguments that make no sense, a model that cannot be trained, or a `run_dir` that holds a search
            with other arguments.
        DataError: data or a journal that make no sense.
        DirectoryError: `run_dir` is in use, or cannot be made or written.
        PeerLostError: the executor is broken, and cannot be made anew.
        PreemptedError: SIGTERM ended a search with workers, which can go on.
        StorageError: the page cannot be written; all other files were written.

    Example:
        >>> result = tfmb.tune(build, x, y, max_trials=20, batch_size=[32, 128], run_dir="runs/search")
        >>> result.best.values["learning_rate"]
    """
    refuse_unknown(space)
    check_counts(executions_per_trial=executions_per_trial)
    check_counts(optional=True, folds=folds)
    callbacks = callbacks_of(callbacks)
    build = build_of(build)
    plan = SearchPlan(
        objective=objective_of(objective),
        oracle=oracle,
        max_trials=max_trials,
        pruning=pruning,
        timeout=timeout,
        executor=executor,
        workers=workers,
        round_size=round_size,
        max_failures=max_failures,
        overwrite=overwrite,
        any_seed=seed is None,
    )
    need_modules("the report of a search", PAGE_MODULES)
    if run_dir is not None:
        need_folder("run_dir", run_dir)
    if not plan.is_here:
        check_handed_over(strategy, build=build, loss=loss, metrics=metrics, callbacks=callbacks)
    slices = epochs_of(epochs, budget, plan.slices > 1) if callbacks else plan.slices
    given = {"batch_size": batch_size, "learning_rate": learning_rate, **space}
    if isinstance(epochs, (tuple, list)):
        if budget is not None:
            raise ConfigError("epochs are searched, and budget says what a trial may spend: leave one out")
        given["epochs"], epochs = epochs, 1
    train, validation = sources_of(x, y, sample_weight, class_weight, validation_data, validation_split, folds)
    task = SearchTask(
        build=build,
        train=train,
        validation=validation,
        budget=budget or Budget(amount=epochs, slices=slices),
        space=_space(**given),
        strategy=make_local_strategy(strategy, devices, "a search") if plan.is_here else strategy,
        devices=devices,
        seed=random.randrange(2**31) if seed is None else seed,
        loss=loss,
        metrics=metrics,
        executions=executions_per_trial,
        folds=folds,
        callbacks=callbacks,
        max_model_size=max_model_size,
    )
    folder = Path(tempfile.mkdtemp(prefix="tfmb-search-") if run_dir is None else run_dir).expanduser()
    try:
        record = search_in(folder, task, plan, name=getattr(build, "__name__", "a model"), watch=watch)
    except BaseException:
        if run_dir is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    inputs = ArrayPipeline(train, Order(num_examples=train.size, batch_size=1, seed=0)).first_inputs()
    return SearchResult(record, folder, build, temporary=run_dir is None, inputs=inputs)


def _space(**given: Any) -> Space:
    try:
        return Space(**given)
    except TypeError as error:
        raise ConfigError(f"{str(error).rpartition('argument ')[2]} is not an argument of a search") from error
