"""The search: an oracle's trials, one after the other, each run by our loop; stopped anywhere, it goes on."""

import contextlib
import io
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfmb.errors import ConfigError, DivergenceError
from tfmb.training.loop.explosion import Exploded

from .halving import SuccessiveHalving
from .journal import Journal
from .messages import DIVERGED, EXPLODED, FATE, as_metrics, history_of
from .objective import Objective
from .oracles import make_oracle
from .records import SearchRecord, TrialRecord
from .space import discover
from .trial import SearchTask, Trainer

with contextlib.redirect_stdout(io.StringIO()):  # it greets on import
    from keras_tuner.engine import base_tuner

__all__ = ["WEIGHTS", "Search", "TrialLost", "Tuner"]

_IDLE_SECONDS = 0.05
WEIGHTS = "weights"  # the folder of a trial's weights, where it was the best when it ended


class TrialLost(Exception):  # noqa: N818 - it is nobody's error
    """A worker was not heard of for too long, and its trial is another's now."""


class Tuner(base_tuner.BaseTuner):
    """A worker: takes trials from an oracle and runs them through our loop.

    Args:
        oracle: from `oracles.make_oracle`, or a client of one in another process.
        trainer: runs trials in this process.
        slices: of a whole budget.
        objective: what trials are compared by.
        folder: for Keras Tuner's files and the trials' states.
        tuner_id: the worker's name.
    """

    def __init__(
        self, oracle: Any, trainer: Trainer, slices: int, objective: Objective, folder: Path, tuner_id: str
    ) -> None:
        super().__init__(oracle, directory=str(folder.parent), project_name=folder.name)
        self.tuner_id = tuner_id
        self._trainer, self._slices, self._objective, self._folder = trainer, slices, objective, folder

    def reload(self) -> None:
        """Nothing: what was is in the journal."""

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs trials until the oracle has none. An error in the user's code is no bad trial: it ends the search."""
        while (trial := self.oracle.create_trial(self.tuner_id)).status != "STOPPED":
            if trial.status == "IDLE":
                time.sleep(_IDLE_SECONDS)
                continue
            with contextlib.suppress(TrialLost):
                self._run_and_end(trial)

    def _run_and_end(self, trial: Any) -> None:
        """A turn of a trial. Its weights are written before its end is told: whoever is lost then has written them."""
        place = self._folder / f"trial_{trial.trial_id}" / WEIGHTS
        if self.run_trial(trial):
            self._trainer.save_weights(place)
        trial.status = "COMPLETED"
        self.on_trial_end(trial)
        if self.oracle.get_best_trials(1)[0].trial_id != trial.trial_id:
            shutil.rmtree(place, ignore_errors=True)

    def run_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> bool:
        """Trains and evaluates a trial, and reports every slice as it is done.

        Returns:
            Whether the trainer has weights of it that were not written yet.
        """
        values = dict(trial.hyperparameters.values)
        past = values.get("tuner/trial_id") or trial.trial_id
        first, begun = past, history_of(self.oracle.get_trial(past))
        while follows := self.oracle.get_trial(first).hyperparameters.values.get("tuner/trial_id"):
            first = follows  # Hyperband goes on with a trial under another name
            begun = [*history_of(self.oracle.get_trial(first)), *begun]
        slices = int(values.pop("tuner/epochs", self._slices))
        own = {name: value for name, value in values.items() if not name.startswith("tuner/")}

        def goes_on(evaluation: Any) -> bool:
            # Whoever is lost after this report is not asked to train it again.
            if evaluation.slice >= slices or self._objective.reached([evaluation]):
                self._trainer.save_weights(self._folder / f"trial_{trial.trial_id}" / WEIGHTS)
            found = self.oracle.update_trial(trial.trial_id, as_metrics(evaluation), step=evaluation.slice)
            return found.status == "RUNNING" and evaluation.slice < slices

        if begun and begun[-1].slice >= slices:
            return False  # all was told, and then the worker was lost
        try:
            found = self._trainer.run(own, goes_on, self._folder / f"trial_{first}", begun)
        except (DivergenceError, Exploded) as error:
            fate = DIVERGED if isinstance(error, DivergenceError) else EXPLODED
            self.oracle.update_trial(trial.trial_id, {FATE: fate, "tfmb/updates": float(error.update)})
            return False
        return bool(found) and found[-1].slice < slices and not self._objective.reached(found)


class Search:
    """A search in a directory.

    Args:
        task: what all trials share.
        objective: what they are compared by.
        oracle: `bayesian`, `random`, `grid` or `hyperband`.
        max_trials: how many trials there may be.
        folder: the search's directory, locked by the caller.
        name: what is searched, for people.
        pruning: whether trials that do worse than others are stopped early.
        timeout: seconds after which no trial begins any more; None for no limit.
        any_seed: whether a search that goes on keeps its own seed, in place of the task's.

    Attributes:
        journal: its events.
        model: what `build` made of the defaults.
        searched: the names of the hyper-parameters that are not the same in all trials.

    Raises:
        ConfigError: the arguments do not fit together, or not with what the search began with.
        DataError: the journal is damaged.
    """

    def __init__(
        self,
        task: SearchTask,
        objective: Objective,
        oracle: str,
        max_trials: int,
        folder: Path,
        name: str,
        *,
        pruning: bool = False,
        timeout: float | None = None,
        any_seed: bool = False,
    ) -> None:
        if pruning and task.executions > 1:
            raise ConfigError("pruning looks at single trainings: give executions_per_trial=1, or pruning=False")
        if pruning and oracle == "hyperband":
            raise ConfigError("oracle='hyperband' prunes by itself: leave pruning out")
        self.journal = Journal(folder / "journal.jsonl")
        try:
            self._take_up(task, objective, oracle, max_trials, folder, name, pruning, any_seed)
        except BaseException:
            self.journal.close()
            raise
        self._timeout = timeout

    def _take_up(
        self,
        task: SearchTask,
        objective: Objective,
        oracle: str,
        max_trials: int,
        folder: Path,
        name: str,
        pruning: bool,
        any_seed: bool,
    ) -> None:
        if any_seed and self.journal.events and isinstance(self.journal.events[0].get("seed"), int):
            task = replace(task, seed=self.journal.events[0]["seed"])
        self._task, self._objective, self._name, self._kind = task, objective, name, oracle
        self._slices, self._folder = task.budget.slices, folder
        space, self.model = discover(task.build, task.space)
        self.searched = [entry.name for entry in space.space if type(entry).__name__ != "Fixed"]
        self._oracle = make_oracle(oracle, space, objective, max_trials, self._slices, task.seed)
        self._oracle._set_project_dir(str(folder), "trials")
        self._began = time.monotonic()
        self._before = 0.0
        about = {"oracle": oracle, "objective": objective.name, "pruning": pruning}
        self._check({**about, "space": json.loads(json.dumps(space.get_config()))})
        halving = SuccessiveHalving(self._slices, objective.direction) if pruning else None
        self._oracle.begin(self.journal, objective, self._slices, max_trials, halving, self._is_over)
        self.journal.write("session", seconds_before=self._before)

    def run(
        self,
        watch: Callable[[SearchRecord], None] = lambda record: None,
        workers: int = 1,
        hand_over: Callable[[SearchTask], dict[str, Any]] | None = None,
        listen: str | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> SearchRecord:
        """Runs the trials that are left.

        Args:
            watch: gets the record after each trial.
            workers: how many processes run them; 1 is this one.
            hand_over: for several workers, gives what they make the task of: see `worker`.
            listen: see `chief.run_workers`; all trials are then run by processes of their own.
            say: the same.

        Returns:
            What the search came to.

        Raises:
            ConfigError: the user's code builds what cannot be trained, or the objective is not measured.
            StorageError: the journal cannot be written; the search can go on later.
            TfmbError: see `chief.run_workers`.
        """
        if (workers > 1 or listen is not None) and hand_over is not None:
            from .chief import run_workers  # which imports this module

            told = hand_over(self._task)
            run_workers(
                self._oracle, workers, told, self._slices, self._folder, lambda: watch(self.record()), listen, say
            )
            return self.record()
        self._oracle.told = lambda: watch(self.record())
        trainer, folder = Trainer(self._task), self._folder / "trials"
        Tuner(self._oracle, trainer, self._slices, self._objective, folder, "worker-0").search()
        return self.record()

    def record(self) -> SearchRecord:
        """What the search came to so far."""
        with self._oracle._alone():
            return self._record()

    def _record(self) -> SearchRecord:
        trials = []
        for trial_id in self._oracle.start_order:
            progress, trial = self._oracle.progress[trial_id], self._oracle.trials[trial_id]
            fate, cause = progress.fate, progress.cause
            done = len(progress.history)
            if trial_id not in {t.trial_id for t in self._oracle.ongoing_trials.values()} and (
                fate == "waiting" or (fate == "completed" and done < self._slices and not self._reached(progress))
            ):
                fate, cause = "pruned", f"others did better after {done} of {self._slices} slices"
            values = {k: v for k, v in trial.hyperparameters.values.items() if not k.startswith("tuner/")}
            score = None if fate == "diverged" else self._objective.score(progress.history, self._slices)
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
            oracle=self._kind,
            name=self._name,
            seconds=self._before + time.monotonic() - self._began,
            trials=tuple(trials),
        )

    def close(self) -> None:
        """Notes how long it took and closes the journal."""
        self.journal.write("left", seconds=self._before + time.monotonic() - self._began)
        self.journal.close()

    def _reached(self, progress: Any) -> bool:
        return self._objective.reached(progress.history)

    def _is_over(self) -> bool:
        return self._timeout is not None and time.monotonic() - self._began >= self._timeout

    def _check(self, identity: dict[str, Any]) -> None:
        """Writes what the search is, or compares it with what it was."""
        budget = self._task.budget
        now = {
            **identity,
            "budget": [budget.amount, budget.unit, budget.slices],
            "seed": self._task.seed,
            "executions": self._task.executions,
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
