"""The search: an oracle's trials, one after the other, each run by our loop; stopped anywhere, it goes on."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfmb.errors import ConfigError

from .executors.base import Executor
from .objective import Objective
from .oracles.halving import SuccessiveHalving
from .oracles.journal import Journal
from .oracles.journaled import CUT_SHORT
from .oracles.make import ADAPTIVE, make_oracle
from .plan import SearchPlan
from .records import SearchRecord, TrialRecord
from .scheduler import Scheduler
from .space import discover
from .trials.callbacks import described
from .trials.trial import SearchTask
from .turns import Turns

__all__ = ["Search"]


class Search:
    """A search in a directory.

    Args:
        task: what all trials share.
        plan: how it goes about them.
        folder: the search's directory, locked by the caller.
        name: what is searched, for people.

    Attributes:
        journal: its events.
        model: what `build` made of the defaults.

    Raises:
        ConfigError: the arguments do not fit together, or not with what the search began with.
        DataError: the journal is damaged.
    """

    def __init__(self, task: SearchTask, plan: SearchPlan, folder: Path, name: str) -> None:
        if (plan.pruning or plan.oracle == "hyperband") and task.trainings > 1:
            who = "pruning" if plan.pruning else "oracle='hyperband'"
            raise ConfigError(
                f"{who} looks at single trainings: give executions_per_trial=1 and no folds, or "
                + ("pruning=False" if plan.pruning else "another oracle")
            )
        self.journal = Journal(folder / "journal.jsonl")
        self._plan, self._folder, self._name, self._slices = plan, folder, name, task.slices
        self._objective = Objective.parse(plan.objective)
        self._is_asynchronous = False
        try:
            self._take_up(task)
        except BaseException:
            self.journal.close()
            raise

    def _take_up(self, task: SearchTask) -> None:
        plan, objective = self._plan, self._objective
        if plan.any_seed and self.journal.events and isinstance(self.journal.events[0].get("seed"), int):
            task = replace(task, seed=self.journal.events[0]["seed"])
        self._task = task
        space, self.model = discover(task.build, task.space)
        self._fixed = {entry.name for entry in space.space if type(entry).__name__ == "Fixed"}
        self._oracle = make_oracle(plan.oracle, space, objective, plan.max_trials, self._slices, task.seed)
        self._oracle._set_project_dir(str(self._folder), "trials")
        self._began = time.monotonic()
        self._before = 0.0
        about = {"oracle": plan.oracle, "objective": objective.name, "pruning": plan.pruning}
        self._check({**about, "space": json.loads(json.dumps(space.get_config()))})
        halving = SuccessiveHalving(self._slices, objective.direction) if plan.pruning else None
        self._oracle.begin(self.journal, objective, self._slices, plan.max_trials, halving, self._is_over)
        self.journal.write("session", seconds_before=self._before)

    def names(self) -> set[str]:
        """Returns the names of the hyper-parameters that are not the same in all trials."""
        return {name for trial in self.record().trials for name in trial.values} - self._fixed

    def run(
        self,
        executor: Executor,
        watch: Callable[[SearchRecord], None] = lambda record: None,
    ) -> SearchRecord:
        """Runs the trials that are left.

        Args:
            executor: runs them.
            watch: gets the record after each trial.

        Returns:
            What the search came to.

        Raises:
            ConfigError: no trial can be trained, the objective is not measured, or too many trials failed in a row.
            StorageError: the journal cannot be written; the search can go on later.
            TfmbError: see `Scheduler.run`.
        """
        self._oracle.told = lambda: watch(self.record())
        plan = self._plan
        round_size = 1 if plan.round_size is None and executor.workers == 1 else plan.round_size
        self._is_asynchronous = round_size is None and plan.oracle in ADAPTIVE
        turns = Turns(self._oracle, self._task.fingerprint, self._folder / "trials", plan.max_failures)
        Scheduler(turns, executor, executor.put(self._task), round_size).run()
        return self.record()

    def record(self) -> SearchRecord:
        """What the search came to so far."""
        trials = []
        for trial_id in self._oracle.start_order:
            progress, trial = self._oracle.progress[trial_id], self._oracle.trials[trial_id]
            fate, cause = progress.fate, progress.cause
            done = len(progress.history)
            if trial_id not in {t.trial_id for t in self._oracle.ongoing_trials.values()} and (
                fate == "waiting" or (fate == "completed" and not self._oracle.is_whole(trial_id))
            ):
                fate, cause = "pruned", f"others did better after {done} of {self._slices} slices"
            values = {k: v for k, v in trial.hyperparameters.values.items() if not k.startswith("tuner/")}
            score = None if fate in CUT_SHORT else self._objective.score(progress.history, self._slices)
            trials.append(
                TrialRecord(
                    trial=trial_id,
                    values=values,
                    fate="running" if fate == "waiting" else fate,
                    cause=cause,
                    score=score,
                    seconds=progress.seconds,
                    worker=progress.worker,
                    history=tuple(progress.history),
                )
            )
        return SearchRecord(
            objective=self._objective.name,
            direction=self._objective.direction,
            oracle=self._plan.oracle,
            name=self._name,
            seconds=self._before + time.monotonic() - self._began,
            trials=tuple(trials),
            asynchronous=self._is_asynchronous,
        )

    def close(self) -> None:
        """Notes how long it took and closes the journal."""
        self.journal.write("left", seconds=self._before + time.monotonic() - self._began)
        self.journal.close()

    def _is_over(self) -> bool:
        limit = self._plan.timeout
        return limit is not None and time.monotonic() - self._began >= limit

    def _check(self, identity: dict[str, Any]) -> None:
        """Writes what the search is, or compares it with what it was."""
        budget = self._task.budget
        now = {
            **identity,
            "budget": [budget.amount, budget.unit, budget.slices],
            "seed": self._task.seed,
            "executions": self._task.executions,
            "folds": self._task.folds,
            "callbacks": described(self._task.callbacks),
            "train": self._task.train.fingerprint,
            "validation": self._task.validation.fingerprint,
        }
        if not self.journal.events:
            self.journal.write("search", **now)
            return
        first = self.journal.events[0]
        different = [key for key in now if first.get(key) != now[key]]
        if first["event"] != "search" or different:
            raise ConfigError(
                f"{self._folder} holds a search with another {different[0] if different else 'beginning'}: give the "
                "same arguments, or another --run-dir"
            )
        times = [e.get("seconds", e.get("seconds_before", 0.0)) for e in self.journal.events if e["event"] == "left"]
        self._before = float(times[-1]) if times else 0.0
