"""What a search came to: every trial with its values, its fate and its history. Plain data, made from the journal."""

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from typing import Any

__all__ = ["FATES", "Evaluation", "SearchRecord", "TrialRecord"]

# The fate of a trial. `pruned` ones were stopped early because others did better; `failed` ones raised an error, or
# their worker died; `running` ones have not ended.
FATES = ("completed", "pruned", "diverged", "failed", "running")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One look at a trial.

    Attributes:
        slice: the number of equal shares of the budget that were spent, from 1.
        updates: updates made.
        examples: examples drawn.
        seconds: of training, without evaluation, tracing and compiling.
        metrics: name -> value: the training's and the validation's (`val_...`), the mean over executions and folds.
        epochs: passes over the data that were made; None in a record of an earlier version.
    """

    slice: int
    updates: int
    examples: int
    seconds: float
    metrics: dict[str, float]
    epochs: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial.

    Attributes:
        trial: its id.
        values: hyper-parameter -> value.
        fate: one of `FATES`.
        cause: why it was cut short, in words; None where it was not.
        score: what the search compares; None before the first evaluation, and of a trial that diverged or failed.
        seconds: its whole time by the clock, starts and evaluation included.
        worker: which process ran it last.
        history: its evaluations, in order.
    """

    trial: str
    values: dict[str, Any]
    fate: str = "running"
    cause: str | None = None
    score: float | None = None
    seconds: float = 0.0
    worker: str = ""
    history: tuple[Evaluation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """A search.

    Attributes:
        objective: the name of what is compared, such as `val_loss`.
        direction: `min` or `max`.
        oracle: which one.
        name: what was searched, such as `mnist cnn`.
        seconds: by the clock, over all sessions.
        trials: in the order they began.
        asynchronous: whether a trial was chosen whenever a worker was free, by what was known then: the same call may
            try others.
    """

    objective: str
    direction: str
    oracle: str
    name: str
    seconds: float = 0.0
    trials: tuple[TrialRecord, ...] = field(default=())
    asynchronous: bool = False

    def ranked(self) -> list[TrialRecord]:
        """The trials with a score, best first; the earlier of two equal ones stands first."""
        sign = 1.0 if self.direction == "min" else -1.0
        scored = [trial for trial in self.trials if trial.score is not None and math.isfinite(trial.score)]
        return sorted(scored, key=lambda trial: sign * float(trial.score or 0.0))

    @property
    def best(self) -> TrialRecord | None:
        """The best trial that spent its whole budget, else the best of all; None where none has a score."""
        ranked = self.ranked()
        return next((trial for trial in ranked if trial.fate == "completed"), ranked[0] if ranked else None)

    def only(self, names: Collection[str]) -> "SearchRecord":
        """The same with no other hyper-parameters than these."""
        trials = (
            replace(trial, values={name: value for name, value in trial.values.items() if name in names})
            for trial in self.trials
        )
        return replace(self, trials=tuple(trials))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
