"""A search in a directory, from its lock to its page."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

from tfmb.backend import tf
from tfmb.errors import StorageError
from tfmb.storage.atomic import remove_temporary
from tfmb.storage.lock import DirectoryLock

from .executors.adapt import adapt
from .executors.worker import forget_trainers
from .objective import Objective
from .plan import SearchPlan
from .records import SearchRecord
from .report.page import write_report
from .report.tensorboard import HParamsLog
from .result import write_best
from .search import Search
from .space import RULE_NAMES
from .trials.trial import SearchTask

__all__ = ["search_in"]

_HANDOVER = "handover"  # the folder of the data and the user's code, while the search runs


def search_in(
    folder: Path,
    task: SearchTask,
    plan: SearchPlan,
    *,
    name: str,
    watch: Callable[[SearchRecord], None] = lambda record: None,
    say: Callable[[str], None] = lambda line: None,
    conclude: Callable[[SearchRecord], None] = lambda record: None,
) -> SearchRecord:
    """Runs, or goes on with, a search in a directory, and writes its files.

    Args:
        folder: the directory.
        task: what its trials share.
        plan: how it goes about them.
        name: what is searched, for people.
        watch: gets the record after each trial.
        say: gets a line for the user now and then.
        conclude: gets the record when all trials are done, before the page is written: what it does with the answer
            must not depend on whether the page can be.

    Returns:
        What the search came to.

    Raises:
        ConfigError: see `tune`.
        DataError: the journal makes no sense.
        DirectoryError: the directory is in use.
        StorageError: the journal or the page cannot be written.
    """
    lock = DirectoryLock(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock.acquire()
    try:
        _remove_leftovers(folder)
        if plan.overwrite:
            _remove_search(folder)
        if not plan.is_here:
            _leave_memory()
        search = Search(task, plan, folder, name)
        if getattr(search.model, "optimizer", None) is not None:
            own = type(search.model.optimizer).__name__
            say(f"build(hp) compiles the model with {own}, which wins: not searched are {', '.join(RULE_NAMES)}")
        hparams = HParamsLog(folder / "tensorboard", Objective.parse(plan.objective))

        def watch_all(record: SearchRecord) -> None:
            hparams.trials_ended(record)
            write_best(record, folder / "best.json")
            watch(record)

        try:
            with adapt(plan.executor, plan.workers, folder / _HANDOVER) as executor:
                record = search.run(executor, watch_all)
        finally:
            forget_trainers()
            search.close()
        _remove_leftovers(folder)
        watch_all(record)
        page = record.only(search.names()), folder / "report.html"
        try:
            conclude(record)
        except BaseException:
            with contextlib.suppress(StorageError):  # what happened first is told
                write_report(*page)
            raise
        write_report(*page)
        return record
    finally:
        lock.release()


def _remove_leftovers(folder: Path) -> None:
    """Removes what a process that was killed while it wrote left over."""
    shutil.rmtree(folder / _HANDOVER, ignore_errors=True)
    inner = [path for path in folder.glob("trials/**/") if not path.name.startswith(".tmp-")]
    for place in (folder, *inner):
        remove_temporary(place)


def _remove_search(folder: Path) -> None:
    """Removes a search, and nothing else that lies beside it."""
    for name in ("journal.jsonl", "best.json", "report.html"):
        (folder / name).unlink(missing_ok=True)
    for name in ("trials", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _leave_memory() -> None:
    """Takes no more of the GPUs than this process needs, which trains nothing."""
    with contextlib.suppress(RuntimeError, ValueError):  # TensorFlow has started
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
