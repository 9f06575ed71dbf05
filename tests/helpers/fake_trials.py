"""A search whose trials are a formula: the oracles, the journal, the halving and the scheduler without any training."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from tfmb.errors import DivergenceError
from tfmb.tuning.executors import worker
from tfmb.tuning.executors.base import Executor
from tfmb.tuning.objective import Objective
from tfmb.tuning.oracles.halving import SuccessiveHalving
from tfmb.tuning.oracles.journal import Journal
from tfmb.tuning.oracles.make import make_oracle
from tfmb.tuning.records import Evaluation
from tfmb.tuning.scheduler import Scheduler
from tfmb.tuning.space import Space, hyperparameters
from tfmb.tuning.trials.states import Arrays, numbered
from tfmb.tuning.trials.trial import Ran, Trainer
from tfmb.tuning.turns import Turns

SLICES = 9


def look(number: int = 1, **metrics: float) -> Evaluation:
    return Evaluation(slice=number, updates=1, examples=1, seconds=1.0, metrics=metrics or {"val_loss": 1.0})


def loss(values: dict[str, Any], slices: int) -> float:
    """Best at a rate of 0.003 and a batch of 128; falls with training."""
    rate, batch = math.log10(values["learning_rate"] / 0.003), math.log2(values["batch_size"] / 128)
    return 0.1 + 0.3 * rate**2 + 0.02 * batch**2 + 1.0 / slices


class FakeTrainer:
    """In the place of `Trainer`: trials above a rate of 1 diverge. `ran` are the slices that were trained.

    A state names the trial and how far it is: a trial that goes on from another's, or from elsewhere, fails.
    """

    can_pause = True

    def __init__(self, most: float = 1.0) -> None:
        self.ran: list[tuple[float, int, int]] = []
        self._most = most
        self.values: dict[str, Any] = {}

    def run(
        self,
        values: dict[str, Any],
        goes_on: Callable[[Evaluation], bool],
        state: Arrays | None,
        begun: Sequence[Evaluation],
        *about: Any,
    ) -> Ran:
        """See `Trainer.run`."""
        rate, history = values["learning_rate"], list(begun)
        assert state == (self.state(rate, len(begun)) if begun else None)
        self.values = values
        for number in range(len(begun) + 1, SLICES + 1):
            if rate > self._most:
                raise DivergenceError("the loss became NaN", 7, rate, None)
            self.ran.append((rate, values["batch_size"], number))
            metrics = {"val_loss": loss(values, number), "val_accuracy": 1.0 - loss(values, number) / 10}
            history.append(
                Evaluation(slice=number, updates=number, examples=100 * number, seconds=1.0 * number, metrics=metrics)
            )
            if not goes_on(history[-1]):
                break
        return Ran(history, None if len(history) == SLICES else self.state(rate, len(history)))

    @staticmethod
    def state(rate: float, slices: int) -> Arrays:
        return {"slices": np.array(slices), "rate": np.array(rate)}

    def weights(self) -> Arrays:
        """Those of the last trial: its rate."""
        return numbered([self.values["learning_rate"]])

    def forget(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Shared:
    """In the place of `SearchTask`."""

    fingerprint: str = "fake"


@contextmanager
def trained_by(trainer: FakeTrainer) -> Iterator[Shared]:
    """Inside its `with` block slices of this process are run by the formula."""
    worker._trainers[Shared.fingerprint] = cast(Trainer, trainer)
    try:
        yield Shared()
    finally:
        worker.forget_trainers()


def space(kind: str, rates: tuple[float, float] = (1e-4, 1e2)) -> Any:
    hp = hyperparameters()
    ranges: dict[str, Any] = {"batch_size": (16, 1024), "learning_rate": rates}
    if kind == "grid":
        ranges = {"batch_size": [32, 128], "learning_rate": [1e-3, 1e-2, 10.0]}
    Space(**ranges).declare(hp)
    return hp


class Sessions:
    """A search of some oracle in a folder, which can be left and taken up again."""

    def __init__(self, kind: str, folder: Path, pruning: bool = False, most: int = 12, objective: str = "val_loss"):
        self.kind, self.folder, self.most = kind, folder, most
        self.pruning, self.objective = pruning, Objective.parse(objective)
        self.trainer = FakeTrainer()

    def oracle(self, journal: Journal) -> Any:
        """A new one that has read the journal."""
        oracle = make_oracle(self.kind, space(self.kind), self.objective, self.most, SLICES, 3)
        oracle._set_project_dir(str(self.folder), "trials")
        halving = SuccessiveHalving(SLICES, self.objective.direction) if self.pruning else None
        oracle.begin(journal, self.objective, SLICES, self.most, halving)
        return oracle

    def search(
        self, oracle: Any, executor: Executor | None = None, round_size: int | None = 1, max_failures: int = 3
    ) -> None:
        """Runs what is left of a search, in this process if no executor is given."""
        with trained_by(self.trainer) as shared:
            executor = executor or Executor()
            turns = Turns(oracle, shared.fingerprint, self.folder / "trials", max_failures)
            Scheduler(turns, executor, executor.put(shared), round_size).run()

    def run(self, executor: Executor | None = None, round_size: int | None = 1, max_failures: int = 3) -> list[Any]:
        """Runs to the end; the table of its trials."""
        with Journal(self.folder / "journal.jsonl") as journal:
            oracle = self.oracle(journal)
            self.search(oracle, executor, round_size, max_failures)
            return table(oracle)

    def events(self) -> list[dict[str, Any]]:
        """What the journal has."""
        return [json.loads(line) for line in (self.folder / "journal.jsonl").read_text().splitlines()]


def table(oracle: Any) -> list[Any]:
    """What of the trials does not depend on the clock."""
    return [
        (trial, oracle.trials[trial].hyperparameters.values, progress.fate, progress.cause, progress.history)
        for trial, progress in sorted(oracle.progress.items())
    ]
