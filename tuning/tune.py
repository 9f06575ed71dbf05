"""`tfmb.tune`: a search over batch size, learning rate and a user's own choices, in one call."""

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmb.backend import keras, tf
from tfmb.data.records import Records
from tfmb.distribution.strategy import make_local_strategy
from tfmb.environment.old_names import refusing_old_names
from tfmb.environment.requirements import PAGE_MODULES, need_folder, need_modules
from tfmb.errors import ConfigError, StorageError
from tfmb.storage.atomic import remove_temporary
from tfmb.storage.lock import DirectoryLock
from tfmb.training.input.data_adapter import to_source, train_and_validation
from tfmb.types import Data, Strategy

from .budget import Budget
from .executors.adapt import adapt
from .executors.base import Executor, pickled
from .objective import Objective
from .oracles import ORACLES
from .records import SearchRecord
from .report import write_report
from .result import SearchResult, write_best
from .search import Search
from .slices import forget_trainers
from .space import RULE_NAMES, Space
from .tensorboard import HParamsLog
from .trial import SearchTask

__all__ = ["PRUNING_SLICES", "search_in", "tune"]

# Looks at a trial where others may stop it: rungs after 1/9 and 1/3 of its budget.
PRUNING_SLICES = 9
# Bytes of the user's code; it goes to each worker once.
_MOST_CODE = 64 * 2**20


@refusing_old_names
def tune(
    build: Callable[[Any], Any],
    x: Data,
    y: Data = None,
    *,
    validation_data: Data = None,
    validation_split: float = 0.1,
    objective: str = "val_loss",
    max_trials: int = 10,
    oracle: str = "bayesian",
    batch_size: Any = (16, 1024),
    learning_rate: Any = (1e-4, 1e-1),
    executions_per_trial: int = 1,
    epochs: float = 1,
    budget: Budget | None = None,
    pruning: bool = False,
    timeout: float | None = None,
    loss: Any = None,
    metrics: Any = None,
    strategy: Strategy = "auto",
    devices: int | None = None,
    run_dir: str | Path | None = None,
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
        build: a function that takes `keras_tuner.HyperParameters` and returns a Keras model. If it compiles the model
            with an optimizer, that one is used, and no rate is searched. `model.compile(None, loss=...)` leaves the
            optimizer to the search.
        x: examples, as in `tfmb.fit`.
        y: targets.
        validation_data: `(x, y)` to compare trials on; None holds out `validation_split` of the examples.
        validation_split: the share of the examples to hold out. It is drawn once, the same for every seed.
        objective: a metric (`val_loss`, `val_accuracy`, `max:val_mine`), or the effort to reach a value of a metric:
            `seconds:val_accuracy>=0.98`, also `examples:` and `updates:`. A trial that misses the value is censored: it
            is worse than every trial that reached it, and the further it was off, the worse.
        max_trials: the largest number of trials.
        oracle: `bayesian`, `random`, `grid` or `hyperband`: Keras Tuner's.
        batch_size: a range `(low, high)` (searched in powers of two), a list, or one value.
        learning_rate: a range `(low, high)` (searched on a logarithmic scale), a list, or one value.
        executions_per_trial: trainings per trial, each with its own seed. Their metrics are averaged.
        epochs: the number of passes over the data that a trial may spend, whatever its batch size.
        budget: in place of `epochs`, a `Budget` of examples, updates or seconds.
        pruning: whether to stop trials early that do worse than others, by asynchronous successive halving.
        timeout: seconds after which no further trial begins; None for no limit.
        loss: for a model that is not compiled.
        metrics: for a model that is not compiled.
        strategy: as in `tfmb.fit`.
        devices: as in `tfmb.fit`.
        run_dir: a directory for the search. The same call with the same directory goes on with a search that was
            stopped, and repeats no trial. None keeps nothing.
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
    if isinstance(build, keras.Model) or not callable(build):
        raise ConfigError(
            f"build is a {type(build).__name__}: give a function of keras_tuner.HyperParameters that builds a model"
        )
    counts = {"max_trials": max_trials, "executions_per_trial": executions_per_trial, "max_failures": max_failures}
    counts |= {name: value for name, value in (("workers", workers), ("round_size", round_size)) if value is not None}
    _check(counts, oracle, validation_split, timeout)
    need_modules("the report of a search", PAGE_MODULES)
    if run_dir is not None:
        need_folder("run_dir", run_dir)
    is_here = executor is None and workers in (None, 1)
    if not is_here:
        _check_handed_over(build, loss, metrics, strategy)
    source = to_source(x, y)
    if isinstance(source, Records):
        raise ConfigError("a search keeps its data in memory: give arrays")
    source, held_out = train_and_validation(source, validation_data, validation_split)
    task = SearchTask(
        build=build,
        train=source,
        validation=held_out,
        budget=budget or Budget(amount=epochs, slices=PRUNING_SLICES if pruning or oracle == "hyperband" else 1),
        space=_space(batch_size=batch_size, learning_rate=learning_rate, **space),
        strategy=make_local_strategy(strategy, devices, "a search") if is_here else strategy,
        devices=devices,
        seed=random.randrange(2**31) if seed is None else seed,
        loss=loss,
        metrics=metrics,
        executions=executions_per_trial,
    )
    folder = Path(tempfile.mkdtemp(prefix="tfmb-search-") if run_dir is None else run_dir).expanduser()
    try:
        record = search_in(
            folder,
            task,
            objective,
            oracle,
            max_trials,
            name=getattr(build, "__name__", "a model"),
            pruning=pruning,
            timeout=timeout,
            watch=watch,
            any_seed=seed is None,
            executor=executor,
            workers=workers,
            round_size=round_size,
            max_failures=max_failures,
        )
    except BaseException:
        if run_dir is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return SearchResult(record, folder, build, temporary=run_dir is None)


def search_in(
    folder: Path,
    task: SearchTask,
    objective: str,
    oracle: str,
    max_trials: int,
    *,
    name: str,
    pruning: bool = False,
    timeout: float | None = None,
    watch: Callable[[SearchRecord], None] = lambda record: None,
    say: Callable[[str], None] = lambda line: None,
    any_seed: bool = False,
    executor: Any = None,
    workers: int | None = None,
    round_size: int | None = None,
    max_failures: int = 3,
    conclude: Callable[[SearchRecord], None] = lambda record: None,
) -> SearchRecord:
    """Runs, or goes on with, a search in a directory, and writes its files. See `tune`.

    `conclude` gets the record when all trials are done, before
    the page is written: what it does with the answer must not depend on whether the page can be.
    """
    compares = Objective.parse(objective)
    lock = DirectoryLock(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock.acquire()
    with contextlib.ExitStack() as ends:
        ends.callback(lock.release)
        _remove_leftovers(folder)
        runs = adapt(executor, workers, folder)
        ends.callback(runs.close)  # also where the search is refused
        if type(runs) is not Executor:
            _leave_memory()
        search = Search(
            task,
            compares,
            oracle,
            max_trials,
            folder,
            name,
            pruning=pruning,
            timeout=timeout,
            any_seed=any_seed,
        )
        if getattr(search.model, "optimizer", None) is not None:
            own = type(search.model.optimizer).__name__
            say(f"build(hp) compiles the model with {own}, which wins: not searched are {', '.join(RULE_NAMES)}")
        hparams = HParamsLog(folder / "tensorboard", compares)

        def watch_all(record: SearchRecord) -> None:
            hparams.trials_ended(record)
            write_best(record, folder / "best.json")
            watch(record)

        try:
            record = search.run(runs, watch_all, round_size=round_size, max_failures=max_failures)
        finally:
            runs.close()
            forget_trainers()
            search.close()
        _remove_leftovers(folder)
        watch_all(record)
        page = record.only(search.searched), folder / "report.html"
        try:
            conclude(record)
        except BaseException:
            with contextlib.suppress(StorageError):  # what happened first is told
                write_report(*page)
            raise
        write_report(*page)
        return record


def _remove_leftovers(folder: Path) -> None:
    """Removes what a process that was killed while it wrote left over."""
    inner = [path for path in folder.glob("trials/**/") if not path.name.startswith(".tmp-")]
    for place in (folder, *inner):
        remove_temporary(place)


def _space(**given: Any) -> Space:
    try:
        return Space(**given)
    except TypeError as error:
        raise ConfigError(f"{str(error).rpartition('argument ')[2]} is not an argument of a search") from error


def _leave_memory() -> None:
    """Takes no more of the GPUs than this process needs, which trains nothing."""
    with contextlib.suppress(RuntimeError, ValueError):  # TensorFlow has started
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)


def _check_handed_over(build: Any, loss: Any, metrics: Any, strategy: Strategy) -> None:
    """Refuses, before anything is loaded, what cannot be handed to workers."""
    if strategy == "multi-worker":
        raise ConfigError(
            "strategy 'multi-worker' splits one training, workers=N of a search splits the trials: choose one"
        )
    if not isinstance(strategy, str):
        raise ConfigError(
            f"workers make strategies of their own: give strategy by name, not a {type(strategy).__name__}"
        )
    for name, value in (("build", build), ("loss", loss), ("metrics", metrics)):
        if (size := len(pickled(value, name))) > _MOST_CODE:
            raise ConfigError(
                f"{name} uses {size / 2**20:,.0f} MiB of this process's values, and workers take at most "
                f"{_MOST_CODE // 2**20}: let it load them itself"
            )


def _check(counts: dict[str, Any], oracle: str, validation_split: float, timeout: float | None) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}={value!r} must be an integer of at least 1")
    if oracle not in ORACLES:
        raise ConfigError(f"unknown oracle {oracle!r}: give {', '.join(ORACLES)}")
    if not 0 < validation_split < 1:
        raise ConfigError(f"validation_split={validation_split!r} must be a share between 0 and 1")
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"timeout={timeout!r} must be more than 0 seconds")
