"""The slices of a search handed to an executor, and their reports heard: the process of the search alone decides.

It alone has the oracle and writes into the search's directory. A worker that is lost loses the slice it was at.
"""

import asyncio
import contextlib
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from typing import Any

from tfmb.distribution.rendezvous import join_seconds
from tfmb.errors import ConfigError, PeerLostError, PreemptedError, TfmbError

from .executors.base import Executor
from .executors.worker import run_slice
from .trials.slices import SliceReport
from .turns import Turn, Turns

__all__ = ["Scheduler"]

# A trial whose workers die so often is recorded as failed.
MOST_DEATHS = 3
_LOOK_SECONDS = 0.2
_FAR_LONGER = 20  # times as long as any slice before


class Scheduler:
    """Runs the trials that are left of a search.

    Args:
        turns: begins and ends those of its trials.
        executor: runs the slices.
        shared: what they share, as the executor's `put` returned it.
        round_size: the number of trials that are chosen before any of them is heard; None to choose the next one
            whenever a worker is free.
    """

    def __init__(self, turns: Turns, executor: Executor, shared: Any, round_size: int | None) -> None:
        self._turns, self._executor, self._shared, self._round_size = turns, executor, shared, round_size
        self._open: list[Turn] = []
        self._deaths: Counter[str] = Counter()
        self._is_here = type(executor) is Executor
        self._longest, self._silent = 0.0, 2 * join_seconds()

    def run(self) -> None:
        """Runs them.

        Raises:
            ConfigError: the executor does not do what it must, or too many trials failed in a row.
            TfmbError: what no trial can be trained with, from a worker.
            PeerLostError: the executor is broken, and cannot be made anew.
            PreemptedError: SIGTERM.
        """
        # In this process SIGTERM ends a slice at once.
        with contextlib.nullcontext(threading.Event()) if self._is_here else _noted(signal.SIGTERM) as told:
            while self._begin_trials():
                self._submit()
                waiting = [turn.future for turn in self._open if turn.future is not None]
                futures.wait(waiting, _LOOK_SECONDS, futures.FIRST_COMPLETED)
                self._look_after_workers()
                for turn in self._open:
                    if turn.future is not None and turn.future.done():
                        turn.report, turn.future = self._report_of(turn, turn.future), None
                self._note()
                if told.is_set():
                    raise PreemptedError("the search was told to end: the same command goes on with it")

    def _begin_trials(self) -> bool:
        """Gives free workers trials; in a round only once all of the last one have ended. Returns whether any run."""
        size = self._round_size
        if size is None or not self._open:
            count = self._executor.workers if size is None else self._turns.oracle.begin_round(size)
            busy = {turn.worker for turn in self._open}
            for worker in [f"worker-{number}" for number in range(count)]:
                if worker not in busy:
                    if (turn := self._turns.begin(worker)) is None:
                        break
                    self._open.append(turn)
        return bool(self._open)

    def _submit(self) -> None:
        """Hands out as many tasks as there are workers; those of a round may be more."""
        idle = [turn for turn in self._open if turn.future is None and turn.report is None]
        busy = sum(turn.future is not None for turn in self._open)
        for turn in idle[: self._executor.workers - busy]:
            turn.began, turn.is_named = time.monotonic(), False
            try:
                turn.future = self._executor.submit(run_slice, self._shared, turn.task)
            except TfmbError:
                raise
            except Exception as error:  # whatever an executor raises that was shut down or lost its connection
                raise PeerLostError(_broken(error)) from error

    def _look_after_workers(self) -> None:
        """Has workers that hang ended; where nobody sees that, names a slice that takes far longer than any before."""
        self._executor.end_hanging()
        for turn in self._open if not self._executor.sees_hanging else ():
            seconds = time.monotonic() - turn.began
            is_long = seconds > max(self._silent, _FAR_LONGER * self._longest)
            if is_long and not turn.is_named and turn.future is not None and not turn.future.done():
                turn.is_named = True
                warnings.warn(
                    f"trial {turn.task.trial} on {turn.worker} has not reported for {seconds:.0f} s, and no slice "
                    f"before took more than {self._longest:.0f} s: if it hangs, end its worker, and the slice is done "
                    "again",
                    stacklevel=2,
                )

    def _report_of(self, turn: Turn, future: "futures.Future[SliceReport]") -> SliceReport | None:
        """Returns what became of a slice; None if its worker was lost, and it is to be done again."""
        trial = turn.task.trial
        try:
            report = future.result()
        except (Exception, asyncio.CancelledError) as error:  # whatever an engine raises for a task
            is_loss = self._executor.is_loss(error)
            if not self._executor.new(error) if is_loss else isinstance(error, futures.CancelledError):
                raise PeerLostError(_broken(error)) from error
            if not is_loss:
                if self._is_here or isinstance(error, (TfmbError, MemoryError)):
                    raise
                raise ConfigError(f"the executor failed in trial {trial} ({_line(error)})") from error
            self._deaths[trial] += 1
            if self._deaths[trial] < MOST_DEATHS:
                return None
            return SliceReport(trial=trial, fate="failed", cause=f"its worker died {MOST_DEATHS} times: {_line(error)}")
        if not isinstance(report, SliceReport) or report.trial != trial:
            raise ConfigError(
                f"the executor returned a {type(report).__name__} for trial {trial}: submit(fn, *args) must return the "
                "future of fn(*args)"
            )
        self._longest = max(self._longest, time.monotonic() - turn.began)
        return report

    def _note(self) -> None:
        """Notes reports; those of a round once all are heard, in the order of its trials, whichever came first."""
        is_whole = self._round_size is None or all(turn.report for turn in self._open)
        for turn in sorted(self._open, key=lambda turn: turn.task.trial):
            if turn.report is not None and (is_whole or self._turns.is_cut(turn, turn.report)):
                report, turn.report = turn.report, None
                if not self._turns.note(turn, report):
                    self._open.remove(turn)


def _broken(error: BaseException) -> str:
    return f"the executor takes no more tasks ({_line(error)}): the same call with a new one goes on with the search"


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


@contextlib.contextmanager
def _noted(number: int) -> Iterator[threading.Event]:
    """Gives an event that a signal sets inside the `with` block, where nobody else handles the signal."""
    told = threading.Event()
    is_ours = threading.current_thread() is threading.main_thread() and signal.getsignal(number) is signal.SIG_DFL
    if is_ours:
        signal.signal(number, lambda *_: told.set())
    try:
        yield told
    finally:
        if is_ours:
            signal.signal(number, signal.SIG_DFL)
