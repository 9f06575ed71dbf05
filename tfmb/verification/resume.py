"""A run that is stopped half way and goes on in a new process must end with the bits of one that was not stopped."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.backend import keras
from tfmb.errors import PreemptedError
from tfmb.verification.checks import Check, failed, passed
from tfmb.verification.subject import Subject
from tfmb.verification.trainings import Trained, fit_subject

__all__ = ["NAME", "check_resume", "train_and_stop", "train_on"]

NAME = "resume exactness"
_WHOLE, _STOPPED = "whole", "stopped"
_LOG = "metrics.jsonl"


class StopAfter(keras.callbacks.Callback):
    """Sends this process SIGTERM, as a cluster does, after `batches` batches; None for never."""

    def __init__(self, batches: int | None) -> None:
        super().__init__()
        self._left = batches

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts."""
        if self._left is not None:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGTERM)


def train_and_stop(subject: Subject, folder: Path) -> None:
    """Trains, in one process, to the end in one directory, and half way in another one."""
    _keep(_fit(subject, folder / _WHOLE, None), folder / _WHOLE)
    try:
        _fit(subject, folder / _STOPPED, subject.updates // 2)
    except PreemptedError:
        return
    raise RuntimeError(f"SIGTERM after {subject.updates // 2} updates did not stop the run")


def train_on(subject: Subject, folder: Path) -> None:
    """Goes on with the stopped run, in another process."""
    _keep(_fit(subject, folder / _STOPPED, None, resume=True), folder / _STOPPED)


def check_resume(subject: Subject, folder: Path) -> Check:
    """Compares what the two ended with: weights, statistics, slots and seeds, History, and the log's bytes."""
    whole, went_on = (_kept(folder / name) for name in (_WHOLE, _STOPPED))
    about = f"stopped by SIGTERM after {subject.updates // 2} of {subject.updates} updates, resumed in a new process"
    differing = [name for name, value in whole[0].items() if went_on[0][name].tobytes() != value.tobytes()]
    if differing:
        return failed(NAME, f"{about}: {len(differing)} of {len(whole[0])} variables differ")
    if whole[1] != went_on[1]:
        return failed(NAME, f"{about}: the History differs")
    if (folder / _WHOLE / _LOG).read_bytes() != (folder / _STOPPED / _LOG).read_bytes():
        return failed(NAME, f"{about}: {_LOG} differs")
    return passed(NAME, f"{about}: all bits of {len(whole[0])} variables, the History and {_LOG} are equal")


def _fit(subject: Subject, run_dir: Path, stop: int | None, resume: bool = False) -> Trained:
    parts = "auto" if subject.virtual_replicas is None else subject.virtual_replicas
    return fit_subject(subject, virtual_replicas=parts, callbacks=[StopAfter(stop)], run_dir=run_dir, resume=resume)


def _keep(trained: Trained, run_dir: Path) -> None:
    values: dict[str, Any] = {f"{i:04d}": value for i, value in enumerate(trained.state())}
    np.savez(run_dir / "state.npz", **values)
    (run_dir / "history.json").write_text(json.dumps(trained.history.history, default=float))


def _kept(run_dir: Path) -> tuple[dict[str, np.ndarray], Any]:
    with np.load(run_dir / "state.npz", allow_pickle=False) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    return values, json.loads((run_dir / "history.json").read_text())
