"""A search whose trials are a formula: the oracles, the journal and the halving without any training."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from tfmb.errors import DivergenceError
from tfmb.tuning.halving import SuccessiveHalving
from tfmb.tuning.journal import Journal
from tfmb.tuning.objective import Objective
from tfmb.tuning.oracles import make_oracle
from tfmb.tuning.records import Evaluation
from tfmb.tuning.search import Tuner
from tfmb.tuning.space import Space, hyperparameters
from tfmb.tuning.trial import Trainer

SLICES = 9


def loss(values: dict[str, Any], slices: int) -> float:
    """Best at a rate of 0.003 and a batch of 128; falls with training."""
    rate, batch = math.log10(values["learning_rate"] / 0.003), math.log2(values["batch_size"] / 128)
    return 0.1 + 0.3 * rate**2 + 0.02 * batch**2 + 1.0 / slices


class FakeTrainer:
    """In the place of `Trainer`: trials above a rate of 1 diverge. `ran` are the slices that were trained."""

    def __init__(self, most: float = 1.0) -> None:
        self.ran: list[tuple[float, int]] = []
        self._most = most

    def run(
        self, values: dict[str, Any], goes_on: Callable[[Evaluation], bool], state: Path, begun: list[Evaluation]
    ) -> None:
        for number in range(len(begun) + 1, SLICES + 1):
            if values["learning_rate"] > self._most:
                raise DivergenceError("the loss became NaN", 7, values["learning_rate"], None)
            self.ran.append((values["learning_rate"], number))
            metrics = {"val_loss": loss(values, number), "val_accuracy": 1.0 - loss(values, number) / 10}
            found = Evaluation(
                slice=number, updates=number, examples=100 * number, seconds=1.0 * number, metrics=metrics
            )
            if not goes_on(found):
                return

    def save_weights(self, folder: Path) -> None:
        """Nothing."""


def worker_of(oracle: Any, trainer: FakeTrainer, objective: Objective, folder: Path, name: str = "worker-0") -> Tuner:
    """A worker whose trials are the formula."""
    return Tuner(oracle, cast(Trainer, trainer), SLICES, objective, folder, name)


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

    def run(self) -> list[Any]:
        """Runs to the end; the table of its trials."""
        with Journal(self.folder / "journal.jsonl") as journal:
            oracle = self.oracle(journal)
            worker_of(oracle, self.trainer, self.objective, self.folder / "trials").search()
            return table(oracle)


def table(oracle: Any) -> list[Any]:
    """What of the trials does not depend on the clock."""
    return [
        (trial, oracle.trials[trial].hyperparameters.values, progress.fate, progress.cause, progress.history)
        for trial, progress in sorted(oracle.progress.items())
    ]
