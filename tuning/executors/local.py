"""Processes of this machine, by loky: each with a GPU or its share of the cores. One that dies is started again."""

import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, InvalidStateError
from pathlib import Path
from typing import Any

import loky

from tfmb.distribution.launcher import visible_gpus
from tfmb.distribution.rendezvous import join_seconds
from tfmb.errors import PeerLostError

from .. import signs
from .base import OwnWorkers, followed

__all__ = ["LocalProcesses"]

_LOOK_SECONDS = 0.5


class LocalProcesses(OwnWorkers):
    """An executor of worker processes, each a pool of its own: the death of one breaks no other.

    One that gives no sign of life for twice `TFMB_JOIN_SECONDS` is ended, and another takes its place.

    Args:
        workers: the number of processes.
        folder: for the file that they read the data from, and for their signs of life.
    """

    sees_hanging = True

    def __init__(self, workers: int, folder: Path) -> None:
        super().__init__(workers, folder)
        self._place, self._silent = folder, 2 * join_seconds()
        self._pools: dict[int, Any] = {}
        self._signs: dict[int, _Signs] = {}

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
        self._place.mkdir(parents=True, mode=0o700, exist_ok=True)
        sign = self._place / f"worker-{number}"
        given = (os.getpid(), share, threads, sys.path, str(sign))
        try:
            pool = loky.ProcessPoolExecutor(1, timeout=None, initializer=_begin, initargs=given, env=environment)
        except OSError as error:
            raise PeerLostError(f"a worker cannot be started ({error.strerror})") from error
        self.callback(pool.shutdown, wait=True, kill_workers=True)
        self._pools[number] = pool

        def submit(fn: Callable[..., Any], *args: Any) -> "Future[Any]":
            sign.touch()
            self._signs[number] = _Signs(sign)
            return followed(pool.submit(fn, *args))

        return submit

    def end_hanging(self) -> None:
        """See `Executor`: a sign of life is each call of the training function, each few batches of scoring."""
        for number, call in self._last.items():
            if not call.done() and self._signs[number].silent() > self._silent:
                words = f"it gave no sign of life for {self._silent:g} s, twice TFMB_JOIN_SECONDS"
                warnings.warn(f"worker-{number} of this machine is ended: {words}", stacklevel=2)
                with contextlib.suppress(InvalidStateError):  # it has reported in this instant
                    call.set_exception(BrokenExecutor(words))
                    self._pools[number].shutdown(wait=True, kill_workers=True)


class _Signs:
    """Those of a worker in a call. They are compared, and not their times with ours: a clock may be set."""

    def __init__(self, path: Path) -> None:
        self._path, self._last, self._heard = path, 0, time.monotonic()

    def silent(self) -> float:
        """Returns the seconds since the last sign that was seen."""
        if (last := self._path.stat().st_mtime_ns) != self._last:
            self._last, self._heard = last, time.monotonic()
        return time.monotonic() - self._heard


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
