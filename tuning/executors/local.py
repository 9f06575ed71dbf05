"""Processes of this machine, by loky: each with a GPU or its share of the cores. One that dies is started again."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import loky

from tfmb.distribution.launcher import visible_gpus
from tfmb.errors import PeerLostError

from .base import OwnWorkers

__all__ = ["LocalProcesses"]

_LOOK_SECONDS = 0.5


class LocalProcesses(OwnWorkers):
    """An executor of worker processes, each a pool of its own: the death of one breaks no other."""

    def begin(self, number: int) -> "Callable[..., Future[Any]]":
        """See `OwnWorkers`."""
        environment = {"PYTHONUNBUFFERED": "1"}
        if gpus := visible_gpus():
            environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
            if self.workers > len(gpus):  # or the first one would take all of its memory
                environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        threads = max((len(cores) or os.cpu_count() or 1) // self.workers, 1)
        share = cores[number * threads : (number + 1) * threads] if len(cores) >= self.workers else []
        given = (os.getpid(), share, threads, sys.path)
        try:
            pool = loky.ProcessPoolExecutor(1, timeout=None, initializer=_begin, initargs=given, env=environment)
        except OSError as error:
            raise PeerLostError(f"a worker cannot be started ({error.strerror})") from error
        self.callback(pool.shutdown, wait=True, kill_workers=True)
        return pool.submit


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
