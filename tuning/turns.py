"""Trials on their way through a search: the task that goes out next, what the oracle is told, what is kept of each."""

import shutil
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tfmb.errors import ConfigError

from .executors.worker import versions
from .trials.slices import SliceReport, SliceTask
from .trials.states import Arrays, keep, newest_state

__all__ = ["WEIGHTS", "Turn", "Turns"]

WEIGHTS, _STATE = "weights/weights.npz", "state.npz"  # in the folder of a trial; weights of the best one alone
_SAVE_SECONDS = 10.0


@dataclass(kw_only=True)
class Turn:
    """A trial that a worker has.

    Attributes:
        worker: its name in the journal.
        trial: the oracle's.
        state: the file of its state.
        task: the next one, or the one that is done.
        future: of the task, while it is done.
        report: heard, but not noted yet.
        began: when the task was handed out.
        is_named: whether the user was told that it takes long.
        saved: when its state was kept last.
    """

    worker: str
    trial: Any
    state: Path
    task: SliceTask
    future: "Future[SliceReport] | None" = None
    report: SliceReport | None = None
    began: float = 0.0
    is_named: bool = False
    saved: float = field(default_factory=time.monotonic)


class Turns:
    """Begins, notes and ends the turns of trials.

    Args:
        oracle: begun.
        search: the fingerprint of what the trials share.
        folder: for the trials' folders.
        max_failures: the number of failed trials in a row that ends the search.
    """

    def __init__(self, oracle: Any, search: str, folder: Path, max_failures: int) -> None:
        self.oracle, self._search, self._folder, self._max_failures = oracle, search, folder, max_failures
        self._failures = 0

    def begin(self, worker: str) -> Turn | None:
        """Returns a worker's next trial, as far as its states are kept; None if the oracle has none now."""
        trial = self.oracle.create_trial(worker)
        if trial.status != "RUNNING":  # none is left, or one that runs decides whether there is
            return None
        values = dict(trial.hyperparameters.values)
        first = trial.trial_id
        while follows := self.oracle.trials[first].hyperparameters.values.get("tuner/trial_id"):
            first = follows  # Hyperband goes on with a trial under another name
        slices = int(values.get("tuner/epochs", self.oracle.slices))
        task = SliceTask(
            search=self._search,
            trial=trial.trial_id,
            values={name: value for name, value in values.items() if not name.startswith("tuner/")},
            until=slices,
            slices=slices,
            objective=self.oracle.compares.name,
            versions=versions(),
        )
        turn = Turn(worker=worker, trial=trial, state=self._folder / f"trial_{first}" / _STATE, task=task)
        history = tuple(self.oracle.progress[trial.trial_id].history)
        there, state = newest_state(turn.state, len(history))
        self._go_on(turn, history[:there], state)  # what was not kept is made again: the same, to the bit
        return turn

    def _go_on(self, turn: Turn, begun: tuple[Any, ...], state: Arrays | None) -> None:
        """Makes a trial's next task: from a state to the next rung."""
        rungs = [] if self.oracle.halving is None else self.oracle.halving.rungs
        until = next((rung for rung in rungs if len(begun) < rung < turn.task.slices), turn.task.slices)
        best = next(iter(self.oracle.get_best_trials(1)), None)  # a trial without one is always worth its weights
        score = float(best.score) if best is not None and self.oracle.is_whole(best.trial_id) else None
        turn.task = replace(turn.task, begun=begun, state=state, until=until, best=score)

    def is_cut(self, turn: Turn, report: SliceReport) -> bool:
        """Returns whether a worker reported before it had done the task, so as not to lose much in a death."""
        looks = report.evaluations
        goes_on = report.fate is None and bool(looks) and not report.ended and not self.oracle.compares.reached(looks)
        return goes_on and looks[-1].slice < turn.task.until

    def note(self, turn: Turn, report: SliceReport) -> bool:
        """Tells the oracle; returns whether the trial goes on with a next task now, or has ended its turn."""
        task, history = turn.task, (*turn.task.begun, *report.evaluations)
        if report.values not in (None, task.values):
            self.oracle.settle(report.trial, report.values)
            turn.task = replace(task, values=report.values)
        if report.weights is not None:  # before the report that ends a trial: nobody trains it again for them
            keep(self._folder / f"trial_{report.trial}" / WEIGHTS, report.weights)
        goes_on = report.fate is None and bool(report.evaluations)
        for evaluation in report.evaluations:
            goes_on = self.oracle.report(report.trial, evaluation) and goes_on
        if report.fate is not None:
            self.oracle.cut_short(report.trial, report.fate, report.cause)
        spent = report.ended or len(history) >= task.slices or self.oracle.compares.reached(history)
        goes_on = goes_on and not spent
        is_last = spent and "tuner/epochs" not in turn.trial.hyperparameters.values  # Hyperband may go on with it
        is_due = not goes_on or time.monotonic() - turn.saved > _SAVE_SECONDS
        if report.state is not None and is_due and not is_last:
            keep(turn.state, report.state)
            turn.saved = time.monotonic()
        if goes_on:
            self._go_on(turn, history, report.state)
        else:
            self._end(turn, report)
        if is_last:
            turn.state.unlink(missing_ok=True)
        return goes_on

    def _end(self, turn: Turn, report: SliceReport) -> None:
        turn.trial.status = "COMPLETED"
        self.oracle.end_trial(turn.trial, report.ended)
        best = self.oracle.get_best_trials(1)
        for other in self._folder.glob(f"trial_*/{WEIGHTS}"):
            if not best or other != self._folder / f"trial_{best[0].trial_id}" / WEIGHTS:
                shutil.rmtree(other.parent, ignore_errors=True)
        self._failures = self._failures + 1 if report.fate == "failed" else 0
        if self._failures >= self._max_failures:
            raise ConfigError(
                f"{self._failures} trials in a row failed, the last one by {report.cause}: mend it; the same call goes "
                "on past them"
            )
