"""Processes of this machine, by loky: each with a GPU or its share of the cores. One that dies is started again."""

import contextlib
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import loky

from tfmb.distribution.launcher import visible_gpus
from tfmb.errors import PeerLostError

from .base import Executor, OnDisk, WorkerLostError, as_future, on_disk

__all__ = ["LocalProcesses"]

_LOOK_SECONDS = 0.5


class LocalProcesses(Executor):
    """An executor of worker processes, each a pool of its own: the death of one breaks no other.

    Args:
        workers: the number of processes.
        folder: for the file that they read the data from; it is removed at the end.
    """

    def __init__(self, workers: int, folder: Path) -> None:
        self.workers = workers
        self._pools: dict[int, Any] = {}
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(workers):
            self._free.put(number)
        self._folder = folder

    def put(self, data: Any) -> OnDisk:
        """See `Executor`."""
        return on_disk(data, self._folder)

    def submit(self, fn: Callable[..., Any], *args: Any) -> "Future[Any]":
        """See `Executor`."""
        number = self._free.get()
        if number not in self._pools:
            self._pools[number] = _pool(number, self.workers)
        future = as_future(
            self._pools[number].submit(fn, *args), lambda error: isinstance(error, loky.BrokenProcessPool)
        )

        def free(_: Any) -> None:
            if isinstance(future.exception(), WorkerLostError):
                del self._pools[number]
            self._free.put(number)

        future.add_done_callback(free)
        return future

    def close(self) -> None:
        """See `Executor`."""
        for pool in list(self._pools.values()):
            pool.shutdown(wait=True, kill_workers=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def _pool(number: int, count: int) -> Any:
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
            1, timeout=None, initializer=_begin, initargs=(os.getpid(), share, threads, sys.path), env=environment
        )
    except OSError as error:
        raise PeerLostError(f"a worker cannot be started ({error.strerror})") from error


def _begin(chief: int, cores: list[int], threads: int, path: list[str]) -> None:
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


def _end_with(chief: int) -> None:
    while os.getppid() == chief:
        time.sleep(_LOOK_SECONDS)
    os._exit(PeerLostError.exit_code)
