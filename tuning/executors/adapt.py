"""Makes of what a user gives as `executor=` one that a search can use."""

import shutil
import sys
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

from tfmb.errors import ConfigError

from .base import Executor, as_future, on_disk
from .local import LocalProcesses

__all__ = ["adapt"]

_HANDOVER = "handover"  # the folder of the data and the user's code, while the search runs


def adapt(executor: Any, workers: int | None, folder: Path) -> Executor:
    """Returns an executor.

    Args:
        executor: None for processes of this machine, or this process if `workers` is 1; `dask:ADDRESS` or
            `ray:ADDRESS`; a Dask `Client`; the module `ray`; or an object with `submit(fn, *args)` that returns a
            future, such as submitit's executor.
        workers: the number of tasks to run at the same time; None for the executor's own number.
        folder: of the search, which the workers of an executor without `put` must see.

    Raises:
        ConfigError: it cannot run trials.
    """
    if executor is None:
        return Executor() if workers in (None, 1) else LocalProcesses(workers or 1, folder / _HANDOVER)
    kind, _, address = executor.partition(":") if isinstance(executor, str) else ("", "", None)
    if kind == "dask" and not address:
        raise ConfigError("executor 'dask:' names no scheduler: give dask:ADDRESS")
    if kind == "dask" or type(executor).__module__.startswith("distributed."):
        from .on_dask import OnDask

        return OnDask(address or executor, workers)
    if kind == "ray" or getattr(executor, "__name__", "") == "ray":
        from .on_ray import OnRay

        return OnRay(address, workers)
    if not callable(getattr(executor, "submit", None)):
        what = repr(executor) if isinstance(executor, str) else f"a {type(executor).__name__}"
        raise ConfigError(f"executor is {what}: give an object with submit(fn, *args), dask:ADDRESS or ray:ADDRESS")
    return _Given(executor, workers, folder)


class _Given(Executor):
    """A user's executor; it is the user's to end."""

    def __init__(self, executor: Any, workers: int | None, folder: Path) -> None:
        _refuse_what_hangs(executor)
        number = workers or getattr(executor, "_max_workers", None) or getattr(executor, "workers", None)
        if not isinstance(number, int):
            raise ConfigError(f"{type(executor).__name__} does not say how many tasks it runs at once: give workers=N")
        self.workers, self._executor, self._folder = number, executor, folder / _HANDOVER
        self._is_broken = False

    def put(self, data: Any) -> Any:
        """See `Executor`: by the executor's own `put`, else by a file in the search's directory."""
        own = getattr(self._executor, "put", None)
        return own(data) if callable(own) else on_disk(data, self._folder)

    def submit(self, fn: Callable[..., Any], *args: Any) -> "futures.Future[Any]":
        """See `Executor`."""
        return as_future(self._executor.submit(fn, *args), self._is_loss)

    def new(self) -> bool:
        """See `Executor`: a pool that broke only if it can."""
        own = getattr(self._executor, "new", None)
        if callable(own):
            own()
        return callable(own) or not self._is_broken

    def close(self) -> None:
        """See `Executor`: removes the file."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_loss(self, error: BaseException) -> bool:
        breaks = isinstance(error, futures.BrokenExecutor)
        self._is_broken = self._is_broken or breaks
        # The latter is submitit's: each of its jobs is a process of its own, and the next one gets another.
        return breaks or type(error).__name__ == "UncompletedJobError"


def _refuse_what_hangs(executor: Any) -> None:
    if isinstance(executor, futures.ThreadPoolExecutor):
        raise ConfigError("threads share one TensorFlow, where trials change each other's bits: give processes")
    context = getattr(executor, "_mp_context", None)
    if context is not None and context.get_start_method() == "fork" and "tensorflow" in sys.modules:
        raise ConfigError(
            "a forked process hangs in TensorFlow, which has started here: give the pool "
            "mp_context=multiprocessing.get_context('spawn')"
        )
