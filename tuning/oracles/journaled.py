"""What `oracles` adds to Keras Tuner's: a journal that is the truth, reports of every slice, halving, and fates."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfmb.errors import ConfigError, DataError

from ..objective import Objective
from ..quiet import engine_oracle, keras_tuner
from ..records import Evaluation
from .halving import SuccessiveHalving
from .journal import Journal

__all__ = ["CUT_SHORT", "Journaled", "Progress"]

CUT_SHORT = ("diverged", "failed")
# The journal's entries of a report that are no metrics of the model.
_OURS = "tfmb/"
_COUNTS = ("tfmb/updates", "tfmb/examples", "tfmb/seconds", "tfmb/epochs")
# Journals of tfmb 0.2 and before have numbers for what a trial was cut short by.
_NUMBERED = {
    1.0: ("diverged", "the loss or a gradient became NaN or infinite"),
    2.0: ("diverged", "the loss rose far above its start"),
    3.0: ("failed", "it failed"),
}


@dataclass(kw_only=True)
class Progress:
    """What an oracle knows of a trial besides what Keras Tuner keeps.

    Attributes:
        history: its evaluations.
        fate: `running`, `waiting` (on a rung), `completed`, `diverged` or `failed`.
        cause: why it diverged or failed, in words.
        seconds: its time by the clock, over all its turns.
        worker: which process ran it last.
        ended: whether it came to its end before its budget, by a callback or by fewer epochs of its own.
    """

    history: list[Evaluation] = field(default_factory=list)
    fate: str = "running"
    cause: str | None = None
    seconds: float = 0.0
    worker: str = ""
    ended: bool = False


class Journaled(keras_tuner.Oracle):
    """Adds the journal, reports of every slice, halving and fates to one of Keras Tuner's oracles.

    Attributes:
        progress: trial id -> `Progress`.
        compares: what trials are compared by.
        slices: of a whole budget.
        told: is called whenever a trial ended.
    """

    told: Callable[[], None] = staticmethod(lambda: None)

    def begin(
        self,
        journal: Journal,
        objective: Objective,
        slices: int,
        most: int,
        halving: SuccessiveHalving | None,
        deadline: Callable[[], bool] = lambda: False,
    ) -> None:
        """Takes up the search where the journal left it.

        Args:
            journal: of this search.
            objective: what trials are compared by.
            slices: of a whole budget.
            most: how many trials there may be.
            halving: who goes on, or None for all.
            deadline: whether no trial shall begin any more.

        Raises:
            DataError: the journal makes no sense.
        """
        self.verbose = 0
        self.max_consecutive_failed_trials = 2**31
        self.compares, self.slices, self._most = objective, slices, most
        self.halving, self._is_over = halving, deadline
        self.progress: dict[str, Progress] = {}
        self.ongoing_trials: dict[str, Any] = {}
        self._began: dict[str, float] = {}
        self._round, self._is_heard = set[str](), False  # the trials of the last round; whether any was heard
        self._journal = journal
        try:
            for event in list(journal.events):
                self._again(event)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{journal.path} makes no sense ({error!r}): give another --run-dir") from error
        for worker in list(self.ongoing_trials):  # whoever ran them is gone
            self.give_back(worker)

    def begin_round(self, size: int) -> int:
        """Begins a round, or goes on with one that was cut; returns the number of trials to create now."""
        with self._alone():
            if not self._retry_queue:
                self._note("round")
                return size
            # Once one of its trials was heard, another would be chosen by what the others did not know.
            return len(self._retry_queue) + (0 if self._is_heard else max(size - len(self._round), 0))

    def create_trial(self, tuner_id: str) -> Any:
        """The next trial of a worker: one that goes on, or a new one; `STOPPED` where the search is over."""
        with self._alone():
            return self._create(tuner_id)

    def _create(self, tuner_id: str) -> Any:
        self._rescore()
        if tuner_id not in self.ongoing_trials:
            if self._is_over():
                return self._nothing("STOPPED")
            if self.halving is not None and not self._retry_queue:
                # One whose turn is not over yet is still to write what it goes on from.
                called = self.halving.next_to_call({trial.trial_id for trial in self.ongoing_trials.values()})
                if called is not None:
                    self._retry_queue.append(called)
            if not self._retry_queue and len(self.trials) >= self._most:
                # One of those that run may call back one that waits.
                return self._nothing("IDLE" if self.halving is not None and self.ongoing_trials else "STOPPED")
        known = set(self.trials)
        trial = super().create_trial(tuner_id)
        if trial.status == "RUNNING":
            self._note(
                "began",
                trial=trial.trial_id,
                worker=tuner_id,
                new=trial.trial_id not in known,
                values=dict(trial.hyperparameters.values),
            )
        return trial

    def report(self, trial_id: str, evaluation: Evaluation) -> bool:
        """Notes an evaluation; returns whether the trial goes on, and does not wait on its rung.

        Raises:
            ConfigError: the trial does not run, or the evaluation is not its next one, or not finite.
        """
        with self._alone():
            _, progress = self._running(trial_id)
            counts = {name: getattr(evaluation, name.removeprefix(_OURS)) for name in _COUNTS}
            counts = {name: float(count) for name, count in counts.items() if count is not None}
            metrics = {**evaluation.metrics, **counts}
            done = len(progress.history)
            if not 1 <= evaluation.slice <= min(self.slices, done + 1) or not np.isfinite(list(metrics.values())).all():
                raise ConfigError(f"trial {trial_id}: the report of slice {evaluation.slice} is no evaluation")
            self.compares.score([evaluation], self.slices)  # nothing is noted that has none
            if evaluation.slice == done + 1:  # an earlier one was told before: the same, to the bit
                self._note("report", trial=trial_id, slice=evaluation.slice, metrics=metrics)
            return evaluation.slice < done or (progress.fate == "running" and evaluation.slice < self.slices)

    def settle(self, trial_id: str, values: dict[str, Any]) -> None:
        """Notes the values that `build` asked for: without those of branches that it did not enter."""
        with self._alone():
            trial, _ = self._running(trial_id)
            own = {name: value for name, value in trial.hyperparameters.values.items() if name.startswith("tuner/")}
            self._note("values", trial=trial_id, values={**values, **own})

    def cut_short(self, trial_id: str, fate: str, cause: str) -> None:
        """Notes that a trial ends before its time.

        Args:
            trial_id: of a trial that runs.
            fate: one of `CUT_SHORT`.
            cause: of that, in words.
        """
        with self._alone():
            _, progress = self._running(trial_id)
            if progress.fate not in CUT_SHORT:
                self._note("fate", trial=trial_id, fate=fate, words=cause)

    def end_trial(self, trial: Any, ended: bool = False) -> None:
        """Ends a worker's turn with a trial, which may go on later unless it has `ended`."""
        with self._alone():
            own, progress = self._running(trial.trial_id)
            if not progress.history and progress.fate not in CUT_SHORT:
                raise ConfigError(f"trial {trial.trial_id} ends without an evaluation")
            own.status = "COMPLETED"
            seconds = time.monotonic() - self._began.get(trial.trial_id, time.monotonic())
            super().end_trial(own)
            early = {"early": True} if ended and not self.is_whole(trial.trial_id) else {}
            about = {"seconds": progress.seconds + seconds, "score": _finite(own.score), **early}
            self._note("ended", trial=trial.trial_id, **about)

    def score_trial(self, trial: Any) -> None:
        """What a trial is worth; the worst of all where it diverged."""
        progress = self.progress[trial.trial_id]
        score = self.compares.score(progress.history, self.slices)
        trial.best_step = len(progress.history)
        trial.score = self._worst() if progress.fate in CUT_SHORT or score is None else score

    def give_back(self, tuner_id: str) -> None:
        """The trial of a worker that is gone goes back to those to be run."""
        with self._alone():
            self.tuner_ids.discard(tuner_id)
            trial = self.ongoing_trials.get(tuner_id)
            if trial is not None and self.progress[trial.trial_id].fate != "running":
                self.end_trial(trial)  # its turn was over; only that was not said yet
            elif trial is not None:
                self._return(tuner_id)

    def _return(self, worker: str) -> None:
        trial_id = self.ongoing_trials.pop(worker).trial_id
        if trial_id not in self._retry_queue:
            self._retry_queue.append(trial_id)

    def get_best_trials(self, num_trials: int = 1) -> list[Any]:
        """The best ones. Those that spent their whole budget stand first, as in `SearchRecord.best`."""
        with self._alone():
            self._rescore()
            found = super().get_best_trials(max(len(self.trials), 1))
            return sorted(found, key=lambda trial: not self.is_whole(trial.trial_id))[:num_trials]

    def is_whole(self, trial_id: str) -> bool:
        """Whether a trial spent its whole budget, or reached the target."""
        progress = self.progress[trial_id]
        spent = len(progress.history) >= self.slices or self.compares.reached(progress.history)
        return progress.fate == "completed" and (spent or progress.ended)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keras Tuner's own lock stays held where a call in it fails: it is opened again."""
        try:
            yield
        except BaseException:
            engine_oracle.THREADS[self] = None
            if engine_oracle.LOCKS[self].locked():
                engine_oracle.LOCKS[self].release()
            raise

    def _note(self, event: str, **entries: Any) -> None:
        """Writes an event, then does what it says: the same that happens when it is read again."""
        self._journal.write(event, **entries)
        if event == "began":
            self._began[entries["trial"]] = time.monotonic()
        self._heard(event, entries)
        if event == "ended":
            self.told()

    def _again(self, event: dict[str, Any]) -> None:
        """An event of an earlier session."""
        kind = event["event"]
        if kind == "began":
            trial_id, worker = str(event["trial"]), str(event["worker"])
            if event["new"]:
                if trial_id in self.trials:
                    raise ValueError(f"trial {trial_id} begins twice")
                self._rescore()
                self._decide_again(trial_id)
                hyperparameters = self.hyperparameters.copy()
                hyperparameters.values = dict(event["values"])
                trial = keras_tuner.engine.trial.Trial(hyperparameters=hyperparameters, trial_id=trial_id)
                self._record_values(trial)
                self.trials[trial_id] = trial
                self.start_order.append(trial_id)
            elif self.halving is not None:
                self.halving.call(trial_id)
            if trial_id in self._retry_queue:
                self._retry_queue.remove(trial_id)
            self.trials[trial_id].status = "RUNNING"
            # Of a worker that was lost it is only known that another has its trial, or that it has another.
            self.ongoing_trials = {w: t for w, t in self.ongoing_trials.items() if t.trial_id != trial_id}
            if worker in self.ongoing_trials:
                self._return(worker)
            self.ongoing_trials[worker] = self.trials[trial_id]
        self._heard(kind, event)
        if kind == "ended":
            trial = self.trials[event["trial"]]
            trial.status = "COMPLETED"
            self.score_trial(trial)
            self.end_order.append(trial.trial_id)
            self.ongoing_trials = {w: t for w, t in self.ongoing_trials.items() if t is not trial}
            self._ended_again(trial)

    def _heard(self, event: str, entries: dict[str, Any]) -> None:
        """What an event means, whether it happens now or is read from the journal."""
        if event == "round":
            self._round, self._is_heard = set(), False
        if event not in ("began", "values", "report", "fate", "ended"):
            return
        trial_id = str(entries["trial"])
        if event == "began":
            self._round.add(trial_id)
        self._is_heard = self._is_heard or event != "began"
        progress = self.progress.setdefault(trial_id, Progress())
        if event == "began":
            progress.fate, progress.worker = "running", str(entries["worker"])
            past = entries["values"].get("tuner/trial_id")  # Hyperband goes on with a trial under another name
            if past and not progress.history:
                progress.history = list(self.progress[past].history)
        elif event == "values":
            self.trials[trial_id].hyperparameters.values = dict(entries["values"])
        elif event == "report":
            metrics, trial = dict(entries["metrics"]), self.trials[trial_id]
            evaluation = Evaluation(
                slice=int(entries["slice"]),
                updates=int(metrics["tfmb/updates"]),
                examples=int(metrics["tfmb/examples"]),
                seconds=float(metrics["tfmb/seconds"]),
                metrics={name: float(value) for name, value in metrics.items() if not name.startswith(_OURS)},
                epochs=metrics.get("tfmb/epochs"),
            )
            progress.history.append(evaluation)
            for name, value in metrics.items():
                if not trial.metrics.exists(name):
                    better = self.compares.better if name == self.compares.metric else "min"
                    trial.metrics.register(name, direction=better)
                trial.metrics.update(name, value, step=evaluation.slice)
            score = self.compares.score(progress.history, self.slices)
            whole = evaluation.slice >= self.slices or self.compares.reached(progress.history)
            if self.halving is not None and not self.halving.report(trial_id, evaluation.slice, score) and not whole:
                progress.fate = "waiting"
            if whole:
                progress.fate = "completed"
                if self.halving is not None:
                    self.halving.call(trial_id)  # it may have reached the target where others do better
        elif event == "fate":
            progress.fate, cause = _NUMBERED.get(entries["fate"], (entries["fate"], ""))
            at = f" at update {entries['update']}" if entries.get("update") else ""
            progress.cause = (entries.get("words") or cause) + at
            if self.halving is not None:
                for rung in self.halving.rungs:
                    if rung > len(progress.history):
                        self.halving.report(trial_id, rung, None)
        else:
            progress.seconds, progress.ended = float(entries["seconds"]), bool(entries.get("early"))
            if progress.ended:
                self._end_early(trial_id, progress)
            if progress.fate == "running":  # of a budget that the oracle itself divides
                progress.fate = "completed"

    def _end_early(self, trial_id: str, progress: Progress) -> None:
        """A trial that ended counts on the rungs that it did not come to, and waits on none."""
        progress.fate = "completed"
        if self.halving is not None:
            for rung in self.halving.rungs:
                if rung > len(progress.history):
                    self.halving.report(trial_id, rung, self.compares.score(progress.history, self.slices))
            self.halving.call(trial_id)

    def _decide_again(self, trial_id: str) -> None:
        """Brings the oracle's own state to where it is after it decided on a trial."""
        self.populate_space(trial_id)

    def _ended_again(self, trial: Any) -> None:
        """What the oracle does at a trial's end besides."""

    def _running(self, trial_id: str) -> tuple[Any, Progress]:
        if all(trial.trial_id != trial_id for trial in self.ongoing_trials.values()):
            raise ConfigError(f"trial {trial_id!r} does not run")
        return self.trials[trial_id], self.progress[trial_id]

    def _nothing(self, status: str) -> Any:
        return keras_tuner.engine.trial.Trial(hyperparameters=self.get_space(), trial_id="", status=status)

    def _worst(self) -> float:
        """A score a little worse than that of any trial that did not diverge."""
        scores = [
            trial.score
            for trial in self.trials.values()
            if trial.score is not None and self.progress[trial.trial_id].fate not in CUT_SHORT
        ]
        if not scores:
            return 0.0
        margin = 0.1 * (max(scores) - min(scores)) or 0.1 * abs(scores[0]) or 0.1
        return float(max(self.compares.sign * score for score in scores) + margin) * self.compares.sign

    def _rescore(self) -> None:
        """A trial that ends now may be worse than those that diverged were said to be."""
        worst = self._worst()
        for trial in self.trials.values():
            if trial.status == "COMPLETED" and self.progress[trial.trial_id].fate in CUT_SHORT:
                trial.score = worst


def _finite(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
