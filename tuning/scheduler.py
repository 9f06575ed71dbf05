"""The trials of a search handed to an executor, and their reports heard: the process of the search alone decides.

It alone has the oracle and writes into the search's directory. A worker that is lost loses the slice it was at.
"""

import contextlib
import shutil
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfmb.distribution.rendezvous import join_seconds
from tfmb.errors import ConfigError, PeerLostError, PreemptedError, TfmbError

from .executors.base import Executor, WorkerLostError
from .messages import FAILED, as_metrics
from .objective import Objective
from .slices import SliceReport, SliceTask, run_slice
from .states import drop_states, keep_state, keep_weights, kept_state, newest_state

__all__ = ["WEIGHTS", "Scheduler"]

WEIGHTS = "weights"  # the folder of the weights of the best trial, in its own
# A trial whose workers die so often is recorded as failed.
MOST_DEATHS = 3
_LOOK_SECONDS = 0.2
_FAR_LONGER = 20  # times as long as any slice before
_SAVE_SECONDS = 10.0


@dataclass(kw_only=True)
class _Turn:
    """A trial that is being run."""

    trial: Any
    task: SliceTask
    home: Path
    saved: float
    began: float = 0.0
    is_named: bool = False
    future: "futures.Future[SliceReport] | None" = None


class Scheduler:
    """Runs the trials that are left of a search.

    Args:
        oracle: begun.
        executor: runs the slices.
        shared: what they share, as the executor's `put` returned it.
        folder: for the trials' folders.
        slices: of a whole budget.
        objective: what trials are compared by.
    """

    def __init__(
        self,
        oracle: Any,
        executor: Executor,
        shared: Any,
        folder: Path,
        slices: int,
        objective: Objective,
    ) -> None:
        self._oracle, self._executor, self._shared, self._folder = oracle, executor, shared, folder
        self._slices, self._objective = slices, objective
        self._round_size: int | None = None
        self._max_failures = 1
        self._turns: dict[str, _Turn] = {}  # by the name of the worker, which the journal has
        self._heard: dict[str, SliceReport] = {}  # of a round, until all of it are there
        self._deaths: Counter[str] = Counter()
        self._failures, self._longest, self._silent = 0, 0.0, 2 * join_seconds()

    def run(self, round_size: int | None, max_failures: int) -> None:
        """Runs them.

        Args:
            round_size: the number of trials that are chosen before any of them is heard; None to choose the next one
                whenever a worker is free.
            max_failures: the number of failed trials in a row that ends the search.

        Raises:
            ConfigError: the executor does not do what it must, or too many trials failed in a row.
            TfmbError: what no trial can be trained with, from a worker.
            PeerLostError: the executor is broken, and cannot be made anew.
            PreemptedError: SIGTERM.
        """
        self._round_size, self._max_failures = round_size, max_failures
        here = type(self._executor) is Executor  # where SIGTERM ends a slice at once
        with contextlib.nullcontext(lambda: None) if here else _stopping() as check:
            while True:
                check()
                self._begin_trials()
                if not self._turns:
                    return
                waiting = [turn.future for turn in self._turns.values() if turn.future is not None]
                futures.wait(waiting, _LOOK_SECONDS, futures.FIRST_COMPLETED)
                self._look_after_workers()
                for worker, turn in list(self._turns.items()):
                    if turn.future is not None and turn.future.done():
                        self._hear(worker, turn)
                self._end_round()

    def _look_after_workers(self) -> None:
        """Has workers that hang ended; where nobody sees that, names a slice that takes far longer than any before."""
        self._executor.end_hanging()
        for worker, turn in self._turns.items():
            seconds = time.monotonic() - turn.began
            is_long = seconds > max(self._silent, _FAR_LONGER * self._longest) and not self._executor.sees_hanging
            if turn.future is not None and not turn.future.done() and is_long and not turn.is_named:
                turn.is_named = True
                warnings.warn(
                    f"trial {turn.task.trial} on {worker} has not reported for {seconds:.0f} s, and no slice before "
                    f"took more than {self._longest:.0f} s: if it hangs, end its worker, and the slice is done again",
                    stacklevel=2,
                )

    def _begin_trials(self) -> None:
        """Gives free workers what the oracle wants to be tried; in a round only once all of the last one has ended."""
        size = self._round_size
        if size is not None and self._turns:
            return
        for number in range(self._executor.workers if size is None else self._oracle.begin_round(size)):
            worker = f"worker-{number}"
            if worker in self._turns:
                continue
            trial = self._oracle.create_trial(worker)
            if trial.status != "RUNNING":  # none is left, or one that runs decides whether there is
                return
            self._turns[worker] = self._turn_of(trial)
            self._submit(worker)

    def _turn_of(self, trial: Any) -> _Turn:
        """Returns a trial's turn: from its newest state, or that of the trial that it goes on with."""
        values = dict(trial.hyperparameters.values)
        first = trial.trial_id
        while follows := self._oracle.trials[first].hyperparameters.values.get("tuner/trial_id"):
            first = follows  # Hyperband goes on with a trial under another name
        home = self._folder / f"trial_{first}"
        slices = int(values.get("tuner/epochs", self._slices))
        begun = tuple(self._oracle.progress[trial.trial_id].history)
        there = newest_state(home, len(begun))
        task = SliceTask(
            trial=trial.trial_id,
            values={name: value for name, value in values.items() if not name.startswith("tuner/")},
            begun=begun[:there],  # what was not kept is made again: the same, to the bit
            state=kept_state(home, there) if there else None,
            until=self._rung_after(there, slices),
            slices=slices,
            objective=self._objective.name,
            best=self._best_score(),
        )
        return _Turn(trial=trial, task=task, home=home, saved=time.monotonic())

    def _rung_after(self, slices: int, whole: int) -> int:
        rungs = [] if self._oracle.halving is None else self._oracle.halving.rungs
        return next((rung for rung in rungs if slices < rung < whole), whole)

    def _best_score(self) -> float | None:
        """The score of the best trial that spent its whole budget; a trial without one is always worth its weights."""
        best = next(iter(self._oracle.get_best_trials(1)), None)
        return None if best is None or not self._oracle.is_whole(best.trial_id) else float(best.score)

    def _submit(self, worker: str) -> None:
        turn = self._turns[worker]
        turn.began, turn.is_named = time.monotonic(), False
        try:
            turn.future = self._executor.submit(run_slice, self._shared, turn.task)
        except TfmbError:
            raise
        except Exception as error:  # whatever an executor raises that was shut down or lost its connection
            raise PeerLostError(_broken(error)) from error

    def _hear(self, worker: str, turn: _Turn) -> None:
        """Takes what became of a slice."""
        assert turn.future is not None
        future, turn.future = turn.future, None
        try:
            report: SliceReport | None = future.result()
        except futures.CancelledError as error:
            raise PeerLostError(_broken(error)) from error
        except WorkerLostError as error:
            report = self._after_loss(worker, turn, error)
            if report is None:
                return
        except Exception as error:  # whatever an engine raises for a task, told in one line
            if isinstance(error, (TfmbError, MemoryError)) or type(self._executor) is Executor:
                raise
            raise ConfigError(f"the executor failed in trial {turn.task.trial} ({_line(error)})") from error
        if not isinstance(report, SliceReport) or report.trial != turn.task.trial:
            raise ConfigError(
                f"the executor returned a {type(report).__name__} for trial {turn.task.trial}: submit(fn, *args) must "
                "return the future of fn(*args)"
            )
        self._longest = max(self._longest, time.monotonic() - turn.began)
        turns_over = report.fate is not None or not report.evaluations or report.ended
        partial = not turns_over and report.evaluations[-1].slice < turn.task.until
        if self._round_size is not None and not (partial and not self._objective.reached(report.evaluations[-1:])):
            self._heard[worker] = report
        else:
            self._note(worker, report)

    def _after_loss(self, worker: str, turn: _Turn, error: WorkerLostError) -> SliceReport | None:
        """Has the slice done again from its last state; after too many deaths returns the trial's report."""
        if not self._executor.new():
            raise PeerLostError(_broken(error)) from error
        self._deaths[turn.task.trial] += 1
        if self._deaths[turn.task.trial] >= MOST_DEATHS:
            words = f"its worker died {MOST_DEATHS} times: {error}"
            return SliceReport(trial=turn.task.trial, fate=FAILED, words=words)
        self._submit(worker)
        return None

    def _end_round(self) -> None:
        """Notes the reports of a round in the order of its trials, whichever came first."""
        if self._heard and len(self._heard) == len(self._turns):
            heard, self._heard = self._heard, {}
            for worker in sorted(heard, key=lambda worker: self._turns[worker].task.trial):
                self._note(worker, heard[worker])

    def _note(self, worker: str, report: SliceReport) -> None:
        """Tells the oracle, and lets the trial go on, wait or end."""
        turn = self._turns[worker]
        trial_id, goes_on = report.trial, report.fate is None
        if report.values is not None and report.values != turn.task.values:
            self._oracle.settle(trial_id, report.values)
            turn.task = replace(turn.task, values=report.values)
        if report.weights is not None:  # before the report that ends a trial: nobody trains it again for them
            keep_weights(self._folder / f"trial_{trial_id}" / WEIGHTS, report.weights)
        for evaluation in report.evaluations:
            found = self._oracle.update_trial(trial_id, as_metrics(evaluation), step=evaluation.slice)
            goes_on = goes_on and found.status == "RUNNING"
        history = (*turn.task.begun, *report.evaluations)
        spent = bool(history) and (history[-1].slice >= turn.task.slices or self._objective.reached(history))
        spent = spent or report.ended
        if report.fate is not None:
            self._oracle.cut_short(trial_id, report.fate, report.update, report.words)
        now = time.monotonic()
        divided = "tuner/epochs" in turn.trial.hyperparameters.values  # Hyperband goes on with one that spent its part
        ends = spent or not goes_on
        if report.state is not None and (divided or not spent) and (ends or now - turn.saved > _SAVE_SECONDS):
            keep_state(turn.home, report.state, len(history))
            turn.saved = now
        if goes_on and not spent and report.evaluations:
            until = self._rung_after(len(history), turn.task.slices)
            turn.task = replace(turn.task, begun=history, state=report.state, until=until, best=self._best_score())
            self._submit(worker)
            return
        self._end(worker, turn, report, spent)

    def _end(self, worker: str, turn: _Turn, report: SliceReport, spent: bool) -> None:
        """Ends a trial's turn."""
        turn.trial.status = "COMPLETED"
        del self._turns[worker]
        self._oracle.end_trial(turn.trial, report.ended)
        best = self._oracle.get_best_trials(1)
        for other in self._folder.glob(f"trial_*/{WEIGHTS}"):
            if not best or other.parent.name != f"trial_{best[0].trial_id}":
                shutil.rmtree(other, ignore_errors=True)
        if spent and "tuner/epochs" not in turn.trial.hyperparameters.values:  # Hyperband may go on with it
            drop_states(turn.home, self._slices)
        self._failures = self._failures + 1 if report.fate == FAILED else 0
        if self._failures >= self._max_failures:
            raise ConfigError(
                f"{self._failures} trials in a row failed, the last one by {report.words}: mend it; the same call goes "
                "on past them"
            )


def _broken(error: BaseException) -> str:
    return f"the executor takes no more tasks ({_line(error)}): the same call with a new one goes on with the search"


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


@contextlib.contextmanager
def _stopping() -> Iterator[Callable[[], None]]:
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
