"""A slice of a trial: the task, its training, and the report. Task and report are plain data that travel by pickle."""

import time
import traceback
from dataclasses import dataclass
from typing import Any

from tfmb.errors import DivergenceError, TfmbError
from tfmb.training.loop.explosion import Exploded

from ..building import FAILED_TRIAL, words_of
from ..objective import Objective
from ..records import Evaluation
from .states import Arrays
from .trial import Trainer

__all__ = ["SliceReport", "SliceTask", "train_slice"]

# A worker reports at the end of a slice of the budget once so many seconds went by: what is lost in a death is no more.
_REPORT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class SliceTask:
    """A trial, or the slice of one up to the next rung.

    Attributes:
        search: the fingerprint of what the search's trials share.
        trial: its id.
        values: of its hyper-parameters.
        begun: its evaluations so far.
        state: what it goes on from after these; None for the beginning.
        until: the number of slices of the budget after which it is to report.
        slices: the number of slices of its whole budget.
        objective: the text of the search's objective.
        best: the best score so far, beyond which weights are wanted; None for any.
        versions: of the search; a worker must have the same.
    """

    search: str
    trial: str
    values: dict[str, Any]
    begun: tuple[Evaluation, ...] = ()
    state: Arrays | None = None
    until: int
    slices: int
    objective: str
    best: float | None = None
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class SliceReport:
    """The outcome of a slice.

    Attributes:
        trial: the task's.
        evaluations: the new ones, in order.
        state: what the trial can go on from; None once its budget is spent.
        weights: those it has now, where its score is the best so far.
        values: of its hyper-parameters: those that `build` asked for, and the loop's; None if it failed before.
        ended: whether the trial has come to its end, which a callback may decide.
        fate: `diverged` or `failed` if it was cut short; None if not.
        cause: of that, in one line.
    """

    trial: str
    evaluations: tuple[Evaluation, ...] = ()
    state: Arrays | None = None
    weights: Arrays | None = None
    values: dict[str, Any] | None = None
    ended: bool = False
    fate: str | None = None
    cause: str = ""


def train_slice(trainer: Trainer, task: SliceTask) -> SliceReport:
    """Trains a slice of a trial.

    Returns:
        The report. A trial that diverged, ran out of memory or whose `build` failed for its values is a report too.

    Raises:
        ConfigError: a model or values that no trial can be trained with.
        DataError: the trial's state is damaged.
    """
    objective, found, began = Objective.parse(task.objective), list(task.begun), time.monotonic()

    def goes_on(evaluation: Evaluation) -> bool:
        found.append(evaluation)
        late = time.monotonic() - began > _REPORT_SECONDS and trainer.can_pause
        return evaluation.slice < task.until and not late and not objective.reached([evaluation])

    def report(**rest: Any) -> SliceReport:
        return SliceReport(trial=task.trial, evaluations=tuple(found[len(task.begun) :]), **rest)

    try:
        ran = trainer.run(task.values, goes_on, task.state, task.begun, task.trial, objective, task.slices)
    except (DivergenceError, Exploded) as error:
        what = "rose far above its start" if isinstance(error, Exploded) else "or a gradient became NaN or infinite"
        return report(fate="diverged", cause=f"the loss {what} at update {error.update}", values=trainer.values)
    except TfmbError:
        raise
    except Exception as error:  # whatever the user's code, or TensorFlow, raises for these values
        if not isinstance(error, FAILED_TRIAL):  # which says all
            traceback.print_exc()
        trainer.forget()  # it may hold half of a model
        return report(fate="failed", cause=words_of(error))
    score, best = objective.score(found, task.slices), task.best
    # Of equal ones the oracle takes the one that began first, which may end last.
    is_best = score is not None and (best is None or objective.sign * score <= objective.sign * best)
    weights = trainer.weights() if is_best else None
    return report(state=ran.state, weights=weights, values=trainer.values, ended=ran.ended)
