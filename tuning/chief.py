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
from .door import Door
from .service import Server

__all__ = ["MOST_DEATHS", "error_of", "leave_memory", "run_workers", "stopping", "why_lost"]

_LOOK_SECONDS, _LAST_SECONDS = 0.1, 5.0
# A worker that dies so often without having ended a trial between will not end one.
MOST_DEATHS = 3
_MEMORY = ("MemoryError", "ResourceExhaustedError")


def run_workers(
    oracle: Any,
    workers: int,
    task: dict[str, Any],
    slices: int,
    folder: Path,
    notice: Callable[[], None],
    listen: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Runs the trials that are left, in processes of their own.

    Args:
        oracle: begun.
        workers: how many.
        task: what they run: `{"config": ...}` or `{"arrays": ...}`, see `worker`.
        slices: of a whole budget.
        folder: the search's directory.
        notice: is called after trials ended.
        listen: `HOST:PORT` for workers of other hosts, which see the same directory; only with a `config`.
        say: gets a line for the user now and then.

    Raises:
        TfmbError: what the user's code raised in a worker, or why no trial can be ended; the search can go on later.
        MemoryError: a worker had none left.
        PreemptedError: SIGTERM.
    """
    heard = threading.Event()
    oracle.told = heard.set
    names = [f"worker-{number}" for number in range(workers)]
    with contextlib.ExitStack() as stack:
        check = stack.enter_context(stopping())
        about = {"slices": slices, "objective": oracle.compares.name}
        door = None if listen is None else Door(listen, folder, {**task, **about})
        if door is not None:
            stack.callback(door.close)
        server = stack.enter_context(Server(oracle, 2 * workers + (2 if door is None else 50), door))
        crew = stack.enter_context(Crew(names))
        if door is not None:
            host, _, _ = door.address.rpartition(":")
            say(f"workers of other hosts may come to {host}:{server.port}, unencrypted: only in a network you trust")
        deaths, ended_before = dict.fromkeys(names, 0), dict.fromkeys(names, 0)

        def start(worker: str) -> None:
            address = server.admit(worker)
            told = {"chief": address.target, "token": address.token, "worker": worker, "task": task}
            crew.start(worker, {**told, **about, "folder": str(folder)})

        for worker in names:
            start(worker)
        over = math.inf  # by when all have ended, after the first was told that no trial is left, nor runs
        while (crew.running or (door is not None and door.here)) and time.monotonic() < over:
            if heard.wait(_LOOK_SECONDS):
                heard.clear()
                notice()
            if server.failure is not None:
                raise server.failure
            check()
            for ended in [*crew.ended(), *([] if door is None else door.left())]:
                worker, was_silent = ended.worker, ended.worker in server.leases.lost
                holds = oracle.ongoing_trials.get(worker)
                server.dismiss(worker)
                if ended.code == 0 and worker in deaths:
                    over = min(over, time.monotonic() + _LAST_SECONDS)
                if ended.error is not None and not was_silent:  # what it did after its trial was lost is no matter
                    raise error_of(ended)
                if over < math.inf or worker not in deaths:  # a guest's own host starts it again
                    continue
                deaths[worker] = 1 if server.ended[worker] > ended_before[worker] else deaths[worker] + 1
                ended_before[worker] = server.ended[worker]
                if deaths[worker] >= MOST_DEATHS:
                    raise PeerLostError(why_lost(ended, deaths[worker], holds))
                start(worker)
            for worker in server.take_back():
                if worker in deaths:
                    crew.kill(worker)
                elif door is not None:
                    server.dismiss(worker)
                    door.forget(worker)
    if heard.is_set():
        notice()


def error_of(ended: Ended) -> Exception:
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


def why_lost(ended: Ended, times: int, trial: Any) -> str:
    """For people, of a worker that died `times` times in a row, the last time in `trial` where there was one."""
    how = f"exit code {ended.code}" if ended.code >= 0 else signal.Signals(-ended.code).name
    why = " (out of memory?)" if ended.code == -signal.SIGKILL else ""
    what = "" if trial is None else f", the last time in trial {trial.trial_id}"
    return f"{ended.worker} died {times} times in a row by {how}{why}{what}: give fewer workers, or smaller batches"


@contextlib.contextmanager
def stopping() -> Iterator[Callable[[], None]]:
    """Inside its `with` block SIGTERM is only noted, where nobody else handles it; what it gives raises then."""
    told = threading.Event()
    is_ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, lambda *_: told.set())

    def check() -> None:
        if told.is_set():
            raise PreemptedError("the search was told to end: the same command goes on with it")

    try:
        yield check
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def leave_memory() -> None:
    """Takes no more of the GPUs than this process needs, which trains nothing."""
    with contextlib.suppress(RuntimeError, ValueError):  # TensorFlow has started
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
