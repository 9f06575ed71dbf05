"""What `tfmb.tune` returns: the trials, the best one, and its model."""

import json
import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmb.errors import ConfigError, DataError
from tfmb.storage.folders import naming

from .records import SearchRecord, TrialRecord
from .space import hyperparameters
from .trials.states import kept
from .turns import WEIGHTS

__all__ = ["SearchResult", "write_best"]


class SearchResult:
    """A search that ended.

    Attributes:
        record: all of it, as plain data.
        run_dir: the search's directory: `journal.jsonl`, `best.json`, `report.html`, TensorBoard's events and Keras
            Tuner's files.
    """

    def __init__(
        self,
        record: SearchRecord,
        run_dir: Path,
        build: Callable[[Any], Any],
        temporary: bool = False,
        inputs: Any = None,
    ) -> None:
        self.record, self.run_dir, self._build, self._inputs = record, run_dir, build, inputs
        if temporary:  # the directory lives as long as this
            weakref.finalize(self, shutil.rmtree, run_dir, ignore_errors=True)

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials, in the order they began."""
        return self.record.trials

    @property
    def best(self) -> TrialRecord:
        """The best trial of those that spent their whole budget.

        Raises:
            ConfigError: every trial diverged.
        """
        best = self.record.best
        if best is None:
            last = self.trials[-1].cause if self.trials else "no trial began"
            raise ConfigError(f"no trial has a score, the last one: {last}; where they diverged, search lower rates")
        return best

    def best_model(self) -> Any:
        """The model of the best trial, with the weights it ended with (those of its last execution)."""
        best = self.best
        hp = hyperparameters()
        hp.values = dict(best.values)
        model = self._build(hp)
        if not model.built and self._inputs is not None:
            model(self._inputs.numbers())
        weights = list(kept(self.run_dir / "trials" / f"trial_{best.trial}" / WEIGHTS).values())
        if [weight.shape for weight in weights] != [tuple(w.shape) for w in model.weights]:
            raise DataError(f"{self.run_dir}: build(hp) gives another model than in the search: its code changed")
        model.set_weights(weights)
        return model


def write_best(record: SearchRecord, path: Path) -> None:
    """Writes the best trial as JSON, whole or not at all; nothing where there is none."""
    best = record.best
    if best is None:
        return
    found = {
        "objective": record.objective,
        "direction": record.direction,
        "score": best.score,
        "trial": best.trial,
        "values": best.values,
        "metrics": best.history[-1].metrics,
        "trials": len(record.trials),
        "seconds": round(record.seconds, 3),
    }
    temporary = path.with_name(f".tmp-{path.name}")
    with naming(temporary):
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(temporary, path)
