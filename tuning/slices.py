"""A slice of a trial as one function call: what goes to a worker, what it does there, and what comes back.

Everything here is plain data that travels by pickle: between processes of one machine, by Dask, Ray or Slurm. A worker
keeps nothing of a trial but what it traced and compiled, and writes nothing.
"""

import functools
import os
import socket
import time
import traceback
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from tfmb.errors import ConfigError, DivergenceError, TfmbError
from tfmb.training.loop.explosion import Exploded

from .building import FAILED_TRIAL
from .executors.base import OnDisk
from .messages import DIVERGED, EXPLODED, FAILED
from .objective import Objective
from .records import Evaluation
from .trial import SearchTask, Trainer

__all__ = ["SliceReport", "SliceTask", "forget_trainers", "run_slice", "versions"]

# A worker reports at the end of a slice of the budget once so many seconds went by: what is lost in a death is no more.
_REPORT_SECONDS = 10.0
_MOST_WORDS = 500
_STACK = ('File "', "Detected at node", "Graph execution error", "Stack trace", "Node: ", "[[")
# Another version of one of these may train other bits, or not understand the task.
_PACKAGES = ("tfmb", "tensorflow", "keras", "keras-tuner", "numpy")


@functools.cache
def versions() -> dict[str, str]:
    """Returns the versions that a worker must share with the search."""
    return {name: metadata.version(name) for name in _PACKAGES}


@dataclass(frozen=True, kw_only=True)
class SliceTask:
    """A trial, or the slice of one up to the next rung.

    Attributes:
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

    trial: str
    values: dict[str, Any]
    begun: tuple[Evaluation, ...]
    state: bytes | None
    until: int
    slices: int
    objective: str
    best: float | None
    versions: dict[str, str] = field(default_factory=versions)


@dataclass(frozen=True, kw_only=True)
class SliceReport:
    """What a worker found.

    Attributes:
        trial: the task's.
        evaluations: the new ones, in order.
        state: what the trial can go on from; None once its budget is spent.
        weights: those it has now, where its score is the best so far.
        values: of its hyper-parameters: those that `build` asked for, and the loop's; None if it failed before.
        ended: whether the trial has come to its end, which a callback may decide.
        fate: one of `messages.CAUSES` if it was cut short; None if not.
        update: the update that did it, where it is known.
        words: the error of the user's code, in one line.
        worker: the host and the number of the process.
    """

    trial: str
    evaluations: tuple[Evaluation, ...] = ()
    state: bytes | None = None
    weights: bytes | None = None
    values: dict[str, Any] | None = None
    ended: bool = False
    fate: float | None = None
    update: int = 0
    words: str = ""
    worker: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")


# The trainer of the search that this process worked for last.
_trainers: dict[str, Trainer] = {}


def run_slice(shared: "SearchTask | OnDisk", task: SliceTask) -> SliceReport:
    """Trains a slice of a trial, in whichever process this is.

    Args:
        shared: what the search's trials share, or the file that it lies in.
        task: what to do.

    Returns:
        The report. A trial that diverged, ran out of memory or whose `build` failed for its values is a report too.

    Raises:
        ConfigError: other versions here than in the search, or a model or values that no trial can be trained with.
        DataError: the trial's state is damaged.
    """
    trainer, objective = _trainer_of(shared, task.versions), Objective.parse(task.objective)
    began, found = time.monotonic(), list[Evaluation]()

    def goes_on(evaluation: Evaluation) -> bool:
        found.append(evaluation)
        late = time.monotonic() - began > _REPORT_SECONDS and trainer.can_pause
        return evaluation.slice < task.until and not late and not objective.reached([evaluation])

    def report(**rest: Any) -> SliceReport:
        return SliceReport(trial=task.trial, evaluations=tuple(found), **rest)

    try:
        ran = trainer.run(task.values, goes_on, task.state, task.begun, task.trial, objective, task.slices)
    except (DivergenceError, Exploded) as error:
        fate = DIVERGED if isinstance(error, DivergenceError) else EXPLODED
        return report(fate=fate, update=error.update, values=trainer.values)
    except TfmbError:
        raise
    except Exception as error:  # whatever the user's code, or TensorFlow, raises for these values
        if not isinstance(error, FAILED_TRIAL):  # which says all
            traceback.print_exc()
        trainer.forget()  # it may hold half of a model
        return report(fate=FAILED, words=_words(error))
    weights = trainer.weights() if _is_best(objective, (*task.begun, *found), task) else None
    return report(state=ran.state, weights=weights, values=trainer.values, ended=ran.ended)


def _words(error: Exception) -> str:
    """Returns an error in one line, without the stack of the graph that TensorFlow puts before its reason."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = " ".join(line for line in lines if line and not line.startswith(_STACK))
    return f"{type(error).__name__}: {' '.join(said.split())}".removesuffix(": ")[:_MOST_WORDS]


def _is_best(objective: Objective, history: tuple[Evaluation, ...], task: SliceTask) -> bool:
    score = objective.score(history, task.slices)
    if score is None or task.best is None:
        return score is not None
    # Of equal ones the oracle takes the one that began first, which may end last.
    return score <= task.best if objective.direction == "min" else score >= task.best


def _trainer_of(shared: "SearchTask | OnDisk", wanted: dict[str, str]) -> Trainer:
    """Keeps data, traces and compiled programs from task to task, of one search at a time."""
    if shared.fingerprint not in _trainers:
        for name, here in versions().items():
            if here != wanted[name]:
                where = f"a worker on {socket.gethostname()} has {name} {here}"
                raise ConfigError(f"{where}, and the search {wanted[name]}: install the same versions")
        _trainers.clear()
        _trainers[shared.fingerprint] = Trainer(shared.load() if isinstance(shared, OnDisk) else shared)
    return _trainers[shared.fingerprint]


def forget_trainers() -> None:
    """Gives the memory of data and models in this process back."""
    _trainers.clear()
