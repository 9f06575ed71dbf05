"""Makes of what a user gives as `executor=` one that a search can use."""

import sys
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

from tfmb.errors import ConfigError

from .base import Executor, followed
from .local import LocalProcesses

__all__ = ["adapt"]


def adapt(executor: Any, workers: int | None, folder: Path) -> Executor:
    """Returns an executor.

    Args:
        executor: None for processes of this machine, or this process if `workers` is 1; `dask:ADDRESS` or
            `ray:ADDRESS`; a Dask `Client`; the module `ray`; or an object with `submit(fn, *args)` that returns a
            future, such as submitit's executor.
        workers: the number of tasks to run at the same time; None for the executor's own number.
        folder: for the data and the user's code, which the workers of an executor without `put` must see.

    Raises:
        ConfigError: it cannot run trials.
    """
    if executor is None:
        return Executor() if workers in (None, 1) else LocalProcesses(workers or 1, folder)
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
        super().__init__(number, folder)
        self._executor = executor

    def put(self, data: Any) -> Any:
        """See `Executor`: by the executor's own `put`, else by a file in the search's directory."""
        own = getattr(self._executor, "put", None)
        return own(data) if callable(own) else super().put(data)

    def submit(self, fn: Callable[..., Any], *args: Any) -> "futures.Future[Any]":
        """See `Executor`."""
        given = self._executor.submit(fn, *args)
        if not callable(getattr(given, "result", None)):
            raise ConfigError(f"the executor's submit returned a {type(given).__name__}: it must return a future")
        return given if isinstance(given, futures.Future) else followed(given)

    def is_loss(self, error: BaseException | None) -> bool:
        """See `Executor`; submitit's jobs are processes of their own, and the next one gets another."""
        return super().is_loss(error) or type(error).__name__ == "UncompletedJobError"

    def new(self, error: BaseException) -> bool:
        """See `Executor`: a pool that broke only if it can."""
        if callable(own := getattr(self._executor, "new", None)):
            own()
        return callable(own) or not isinstance(error, futures.BrokenExecutor)


def _refuse_what_hangs(executor: Any) -> None:
    if isinstance(executor, futures.ThreadPoolExecutor):
        raise ConfigError("threads share one TensorFlow, where trials change each other's bits: give processes")
    context = getattr(executor, "_mp_context", None)
    if context is not None and context.get_start_method() == "fork" and "tensorflow" in sys.modules:
        raise ConfigError(
            "a forked process hangs in TensorFlow, which has started here: give the pool "
            "mp_context=multiprocessing.get_context('spawn')"
        )
