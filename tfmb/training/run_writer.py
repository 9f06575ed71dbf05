"""Writes a run: its record from "running" to "finished", its weights, its History."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.distribution.strategy import describe
from tfmb.errors import DivergenceError, PreemptedError, StorageError, TfmbError
from tfmb.optimizers import Optimizer
from tfmb.runs.numerics import numerics
from tfmb.runs.run_dir import hash_of_raw_weights, hash_weights, save_weights, versions
from tfmb.runs.run_record import write_run
from tfmb.types import KerasModel, Strategy

__all__ = ["RunWriter"]


class RunWriter:
    """Writes the record of a run.

    Args:
        folder: the run's directory; None writes nothing.
        model: the user's model.
        optimizer: ours.
        strategy: where the model is trained.
        record: further entries of `run.json`.

    Attributes:
        counts: updates that were not made because they were not finite, and returns to a checkpoint.
    """

    def __init__(
        self, folder: Path | None, model: KerasModel, optimizer: Optimizer, strategy: Strategy, record: dict[str, Any]
    ) -> None:
        self._folder, self._model, self._optimizer, self._strategy = folder, model, optimizer, strategy
        self._record = record
        # By which the run's directory is known whatever its name.
        self._inode = None if folder is None else os.stat(folder).st_ino
        self.counts: dict[str, int] = {}

    def add(self, **entries: Any) -> None:
        """Entries of every record that is written from now on."""
        self._record = {**self._record, **entries}

    def write(self, **entries: Any) -> None:
        """Writes the record, with these entries too."""
        if self._folder is None:
            return
        own = {
            "optimizer": {"class": type(self._optimizer).__name__, **self._optimizer.get_config()},
            "model": {
                "name": self._model.name,
                "parameters": sum(int(np.prod(weight.shape)) for weight in self._model.weights),
                **self._record.get("model", {}),
            },
            "strategy": describe(self._strategy),
            "numerics": numerics(),
            "versions": versions(),
        }
        counts = {"not_finite": self.counts} if any(self.counts.values()) else {}
        write_run(self._folder, {**self._record, **own, **counts, **entries})

    @contextlib.contextmanager
    def telling_how_it_ends(self) -> Iterator[None]:
        """Writes down what ended the run inside the `with` block, if it was an error of ours."""
        try:
            yield
        except PreemptedError as error:
            self.write(status="preempted", error=str(error))
            raise
        except TfmbError as error:
            status = "diverged" if isinstance(error, DivergenceError) else "failed"
            with contextlib.suppress(OSError):  # a disk that is full must not hide what the run failed of
                self.write(status=status, error=str(error))
            raise

    @contextlib.contextmanager
    def telling_of_a_move(self) -> Iterator[None]:
        """Says that the directory has another name now, if that is why something in it cannot be found.

        Raises:
            StorageError: so it is.
        """
        try:
            yield
        except (OSError, TfmbError) as error:
            folder = self._folder
            if folder is None or (os.path.exists(folder) and os.stat(folder).st_ino == self._inode):
                raise
            raise StorageError(
                f"{folder} was renamed or removed during the training: if it was renamed, go on with --resume and its "
                "new name"
            ) from error

    def finish(self, result: dict[str, Any], history: Any) -> str:
        """Writes the final weights, the History and the result; returns the weights' SHA-256."""
        weights = self._model.get_weights()
        checksum = hash_weights(weights)
        if self._folder is None:
            return checksum
        with self.telling_of_a_move():
            save_weights(self._folder, weights)
            logs = {key: [np.asarray(v).tolist() for v in values] for key, values in history.history.items()}
            ended: dict[str, Any] = {"history": {"history": logs, "epochs": list(history.epoch)}, "result": result}
            if raw := hash_of_raw_weights(self._folder):
                ended["raw_weights_sha256"] = raw
            self.write(status="finished", weights_sha256=checksum, **ended)
        return checksum
