"""A search by several worker processes: who does which trial, and what becomes of workers that are lost."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfmb import errors
from tfmb.backend import tf
from tfmb.errors import ConfigError, PeerLostError, PreemptedError, TfmbError

from .crew import Crew, Ended
from .service import Server

__all__ = ["leave_memory", "run_workers"]

_LOOK_SECONDS, _LAST_SECONDS = 0.1, 5.0
# A worker that dies so often without having ended a trial between will not end one.
_MOST_DEATHS = 3
_MEMORY = ("MemoryError", "ResourceExhaustedError")


def run_workers(
    oracle: Any, workers: int, task: dict[str, Any], slices: int, folder: Path, notice: Callable[[], None]
) -> None:
    """Runs the trials that are left, in processes of their own.

    Args:
        oracle: begun.
        workers: how many.
        task: what they run: `{"config": ...}` or `{"arrays": ...}`, see `worker`.
        slices: of a whole budget.
        folder: the search's directory.
        notice: is called after trials ended.

    Raises:
        TfmbError: what the user's code raised in a worker, or why no trial can be ended; the search can go on later.
        MemoryError: a worker had none left.
        PreemptedError: SIGTERM.
    """
    heard = threading.Event()
    oracle.told = heard.set
    names = [f"worker-{number}" for number in range(workers)]
    with _sigterm() as stopped, Server(oracle, 2 * workers + 2) as server, Crew(names) as crew:
        deaths, ended_before = dict.fromkeys(names, 0), dict.fromkeys(names, 0)

        def start(worker: str) -> None:
            address = server.admit(worker)
            told = {"socket": address.socket, "token": address.token, "worker": worker, "task": task}
            crew.start(worker, {**told, "slices": slices, "folder": str(folder)})

        for worker in names:
            start(worker)
        over = math.inf  # by when all have ended, after the first was told that no trial is left, nor runs
        while crew.running and time.monotonic() < over:
            if heard.wait(_LOOK_SECONDS):
                heard.clear()
                notice()
            if server.failure is not None:
                raise server.failure
            if stopped.is_set():
                raise PreemptedError("the search was told to end: the same command goes on with it")
            for ended in crew.ended():
                worker, was_silent = ended.worker, ended.worker in server.leases.lost
                holds = oracle.ongoing_trials.get(worker)
                server.dismiss(worker)
                if ended.code == 0:
                    over = min(over, time.monotonic() + _LAST_SECONDS)
                if ended.error is not None and not was_silent:  # what it did after its trial was lost is no matter
                    raise _error_of(ended)
                if over < math.inf:
                    continue
                deaths[worker] = 1 if server.ended[worker] > ended_before[worker] else deaths[worker] + 1
                ended_before[worker] = server.ended[worker]
                if deaths[worker] >= _MOST_DEATHS:
                    raise PeerLostError(_why_lost(ended, deaths[worker], holds))
                start(worker)
            for worker in server.take_back():
                crew.kill(worker)
    if heard.is_set():
        notice()


def _error_of(ended: Ended) -> Exception:
    """What a worker ended with, as an error here."""
    assert ended.error is not None
    kind, message = str(ended.error.get("kind")), f"{ended.worker}: {ended.error.get('message')}"
    if kind in _MEMORY:
        return MemoryError(message)
    known = getattr(errors, kind, None) if kind in errors.__all__ else None
    if known is None or known is errors.DivergenceError:
        return ConfigError(f"{ended.worker}: {kind}: {ended.error.get('message')} (where, is on standard error)")
    assert issubclass(known, TfmbError)
    return known(message)


def _why_lost(ended: Ended, times: int, trial: Any) -> str:
    how = f"exit code {ended.code}" if ended.code >= 0 else signal.Signals(-ended.code).name
    why = " (out of memory?)" if ended.code == -signal.SIGKILL else ""
    what = "" if trial is None else f", the last time in trial {trial.trial_id}"
    return f"{ended.worker} died {times} times in a row by {how}{why}{what}: give fewer workers, or smaller batches"


@contextlib.contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """Inside its `with` block SIGTERM is only noted, where nobody else handles it."""
    told = threading.Event()
    is_ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def leave_memory() -> None:
    """Takes no more of the GPUs than this process needs, which trains nothing."""
    with contextlib.suppress(RuntimeError, ValueError):  # TensorFlow has started
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
