"""The engine that runs a search's slices, as the search sees it."""

import contextlib
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, InvalidStateError
from pathlib import Path
from typing import Any

from tfmb.errors import ConfigError

from ..by_value import pickled

__all__ = ["Executor", "OwnWorkers", "followed"]


class Executor(contextlib.ExitStack):
    """Runs function calls, one at a time in this process; its subclasses run them elsewhere. Closed, it ends them.

    Args:
        workers: the number of calls at the same time.
        folder: for the file that workers read the data from; None if they do not.

    Attributes:
        sees_hanging: whether `end_hanging` finds workers that hang.
    """

    sees_hanging = False

    def __init__(self, workers: int = 1, folder: Path | None = None) -> None:
        super().__init__()
        self.workers, self._folder = workers, folder

    def put(self, data: Any) -> Any:
        """Hands data to the workers once; returns what stands for them among the arguments of a call.

        Raises:
            ConfigError: they cannot be pickled; or the folder is there already, and another could replace the file.
        """
        if self._folder is None:
            return data
        try:
            self._folder.mkdir(parents=True, mode=0o700)
        except FileExistsError as error:
            raise ConfigError(f"{self._folder} is there already, and may be another's: remove it") from error
        self.callback(shutil.rmtree, self._folder, ignore_errors=True)
        path = self._folder / "search.pickle"
        path.touch(0o600)  # its reader runs the code that is in it
        path.write_bytes(pickled(data, "the search"))
        return path.resolve()

    def submit(self, fn: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Runs `fn(*args)` in a worker; at most `workers` calls run at the same time."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args))
        except Exception as error:  # of the call: whoever asks for the result gets it
            future.set_exception(error)
        return future

    def is_loss(self, error: BaseException | None) -> bool:
        """Returns whether a call failed because its worker ended."""
        return isinstance(error, BrokenExecutor)

    def new(self, error: BaseException) -> bool:
        """Makes anew what the loss of a worker broke; returns whether calls can be submitted again."""
        return True

    def end_hanging(self) -> None:
        """Ends workers that have given no sign of life for long; their calls are lost."""


class OwnWorkers(Executor):
    """Workers with one call at a time each. Another takes the place of one that was lost."""

    def __init__(self, workers: int, folder: Path | None = None) -> None:
        super().__init__(workers, folder)
        self._begun: dict[int, Callable[..., Future[Any]]] = {}
        self._last: dict[int, Future[Any]] = {}

    def begin(self, number: int) -> "Callable[..., Future[Any]]":
        """Starts a worker; returns the function that submits calls to it."""
        raise NotImplementedError(f"{type(self).__name__} must define begin()")

    def submit(self, fn: Callable[..., Any], *args: Any) -> "Future[Any]":
        """See `Executor`."""
        number = next(n for n in range(self.workers) if n not in self._last or self._last[n].done())
        if number not in self._last or self.is_loss(self._last[number].exception()):
            self._begun[number] = self.begin(number)
        self._last[number] = self._begun[number](fn, *args)
        return self._last[number]


def followed(job: Any) -> "Future[Any]":
    """Returns a future of `concurrent.futures` for one of another engine's, which only has `result`."""
    future: Future[Any] = Future()

    def follow() -> None:
        with contextlib.suppress(InvalidStateError):  # its worker was ended meanwhile
            try:
                future.set_result(job.result())
            except BaseException as error:  # of the call or the engine: whoever asks for the result gets it
                future.set_exception(error)

    threading.Thread(target=follow, daemon=True).start()
    return future
