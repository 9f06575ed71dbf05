"""What a search wants of an executor, and data that travel by a file."""

import contextlib
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from tfmb.errors import ConfigError

__all__ = ["Executor", "OnDisk", "WorkerLostError", "as_future", "on_disk", "pickled"]


class WorkerLostError(Exception):
    """A worker process ended in the middle of a task."""


class Executor:
    """Runs function calls, one at a time in this process; its subclasses run them elsewhere.

    Attributes:
        workers: the number of calls that it runs at the same time.
        sees_hanging: whether `end_hanging` finds workers that hang.
    """

    workers = 1
    sees_hanging = False

    def put(self, data: Any) -> Any:
        """Sends data to the workers once; returns what stands for them among the arguments of a call."""
        return data

    def submit(self, fn: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Runs `fn(*args)` in a worker. The future raises `WorkerLostError` if the worker ended meanwhile."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args))
        except Exception as error:  # of the call: whoever asks for the result gets it
            future.set_exception(error)
        return future

    def new(self) -> bool:
        """Makes anew what a lost worker broke; returns whether calls can be submitted again."""
        return True

    def end_hanging(self) -> None:
        """Ends workers that have given no sign of life for long; their calls' futures raise `WorkerLostError`."""

    def close(self) -> None:
        """Ends what this object started."""


@dataclass(frozen=True)
class OnDisk:
    """Data in a file that each worker reads once; `fingerprint` tells them from others."""

    fingerprint: str
    path: str

    def load(self) -> Any:
        """Reads the data.

        Raises:
            ConfigError: the file is not to be seen from here.
        """
        try:
            with open(self.path, "rb") as file:
                return pickle.load(file)
        except OSError as error:
            why = f"a worker cannot read {self.path} ({error.strerror})"
            raise ConfigError(f"{why}: give a run_dir that all workers see") from error


def on_disk(data: Any, folder: Path) -> OnDisk:
    """Writes data and the user's code to a file that only the user may read or write: its reader runs what is in it.

    Raises:
        ConfigError: the folder is there already: it may be another's, who could replace the file.
    """
    try:
        folder.mkdir(parents=True, mode=0o700)
    except FileExistsError as error:
        raise ConfigError(f"{folder} is there already, and may be another's: remove it") from error
    path = folder / f"{data.fingerprint}.pickle"
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(pickled(data, "the search"))
    return OnDisk(data.fingerprint, str(path.resolve()))


def pickled(value: Any, name: str) -> bytes:
    """Returns the pickle of a value: code that can be imported by its name, other code by value.

    Raises:
        ConfigError: it cannot be pickled.
    """
    try:
        return bytes(cloudpickle.dumps(value, protocol=5))
    except Exception as error:  # whatever the user's objects raise
        why = " ".join(str(error).split())[:150] or type(error).__name__
        mend = "let it make what it needs itself, or define it at the top of a module that is imported"
        raise ConfigError(f"{name} cannot be handed to workers ({why}): {mend}") from error


def as_future(given: Any, is_loss: Callable[[BaseException], bool]) -> "Future[Any]":
    """Returns a `concurrent.futures.Future` of any engine's, which raises `WorkerLostError` if a worker was lost.

    Args:
        given: of the engine: it has `result`, and mostly `add_done_callback`.
        is_loss: whether an error is the end of a worker.

    Raises:
        ConfigError: it is no future.
    """
    if not callable(getattr(given, "result", None)):
        raise ConfigError(f"the executor's submit returned a {type(given).__name__}: it must return a future")
    future: Future[Any] = Future()

    def pass_on(_: Any) -> None:
        with contextlib.suppress(InvalidStateError):  # its worker was ended meanwhile
            try:
                future.set_result(given.result())
            except BaseException as error:  # of the call or the engine: whoever asks for the result gets it
                lost = WorkerLostError(" ".join(str(error).split())[:200]) if is_loss(error) else error
                future.set_exception(lost)

    if callable(getattr(given, "add_done_callback", None)):
        given.add_done_callback(pass_on)
    else:  # such as a job of submitit's
        threading.Thread(target=pass_on, args=(given,), daemon=True).start()
    return future
