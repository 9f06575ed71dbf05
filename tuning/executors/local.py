"""Processes of this machine, by loky: each with a GPU or its share of the cores. One that dies is started again."""

import contextlib
import os
import queue
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import loky

from tfmb.distribution.launcher import visible_gpus
from tfmb.distribution.rendezvous import join_seconds
from tfmb.errors import PeerLostError

from .. import signs
from .base import Executor, OnDisk, WorkerLostError, as_future, on_disk

__all__ = ["LocalProcesses"]

_LOOK_SECONDS = 0.5


class LocalProcesses(Executor):
    """An executor of worker processes, each a pool of its own: the death of one breaks no other.

    One that gives no sign of life for twice `TFMB_JOIN_SECONDS` is ended, and another takes its place.

    Args:
        workers: the number of processes.
        folder: for the file that they read the data from; it is removed at the end.
    """

    sees_hanging = True

    def __init__(self, workers: int, folder: Path) -> None:
        self.workers = workers
        self._pools: dict[int, Any] = {}
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(workers):
            self._free.put(number)
        self._folder, self._silent = folder, 2 * join_seconds()
        self._running: dict[int, _Running] = {}

    def put(self, data: Any) -> OnDisk:
        """See `Executor`."""
        return on_disk(data, self._folder)

    def submit(self, fn: Callable[..., Any], *args: Any) -> "Future[Any]":
        """See `Executor`."""
        number = self._free.get()
        sign = self._folder / f"worker-{number}"
        self._folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        sign.touch()
        if number not in self._pools:
            self._pools[number] = _pool(number, self.workers, str(sign))
        future = as_future(
            self._pools[number].submit(fn, *args), lambda error: isinstance(error, loky.BrokenProcessPool)
        )

        self._running[number] = _Running(future, sign)

        def free(_: Any) -> None:
            self._running.pop(number, None)
            if isinstance(future.exception(), WorkerLostError):
                del self._pools[number]
            self._free.put(number)

        future.add_done_callback(free)
        return future

    def end_hanging(self) -> None:
        """See `Executor`: a sign of life is each call of the training function, each few batches of scoring."""
        for number, running in list(self._running.items()):
            if running.silent() > self._silent:
                pool = self._pools[number]
                words = f"it gave no sign of life for {self._silent:g} s, twice TFMB_JOIN_SECONDS"
                warnings.warn(f"worker-{number} of this machine is ended: {words}", stacklevel=2)
                running.future.set_exception(WorkerLostError(words))
                pool.shutdown(wait=False, kill_workers=True)

    def close(self) -> None:
        """See `Executor`."""
        for pool in list(self._pools.values()):
            pool.shutdown(wait=True, kill_workers=True)
        shutil.rmtree(self._folder, ignore_errors=True)


class _Running:
    """A call that a worker is at. Signs are compared, and not their times with ours: a clock may be set."""

    def __init__(self, future: "Future[Any]", sign: Path) -> None:
        self.future, self._sign = future, sign
        self._last, self._heard = 0, time.monotonic()

    def silent(self) -> float:
        """Returns the seconds since the last sign that was seen."""
        if (last := self._sign.stat().st_mtime_ns) != self._last:
            self._last, self._heard = last, time.monotonic()
        return time.monotonic() - self._heard


def _pool(number: int, count: int, sign: str) -> Any:
    environment = {"PYTHONUNBUFFERED": "1"}
    if gpus := visible_gpus():
        environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        if count > len(gpus):  # or the first one would take all of its memory
            environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    threads = max((len(cores) or os.cpu_count() or 1) // count, 1)
    share = cores[number * threads : (number + 1) * threads] if len(cores) >= count else []
    try:
        return loky.ProcessPoolExecutor(
            1, timeout=None, initializer=_begin, initargs=(os.getpid(), share, threads, sys.path, sign), env=environment
        )
    except OSError as error:
        raise PeerLostError(f"a worker cannot be started ({error.strerror})") from error


def _begin(chief: int, cores: list[int], threads: int, path: list[str], sign: str) -> None:
    """Makes a worker ready: its cores, the user's modules, its output to standard error, its end with the search's."""
    os.dup2(2, 1)
    sys.path[:] = path
    if cores and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a container may forbid it
            os.sched_setaffinity(0, cores)
    threading.Thread(target=_end_with, args=(chief,), daemon=True).start()
    from tfmb.environment.console import show_warnings, start_tensorflow

    show_warnings()
    start_tensorflow(threads)
    signs.give_by(sign)
    signs.alive()


def _end_with(chief: int) -> None:
    while os.getppid() == chief:
        time.sleep(_LOOK_SECONDS)
    os._exit(PeerLostError.exit_code)
