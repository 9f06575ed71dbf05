"""A search for TensorBoard's HParams page: each trial's values, and its metrics by slice."""

from pathlib import Path

from tensorboard.plugins.hparams import api

from tfmb.backend import tf

from ..objective import Objective
from ..records import SearchRecord

__all__ = ["HParamsLog"]


class HParamsLog:
    """Writes the events of trials as they end.

    Args:
        folder: for a folder of each trial.
        objective: what trials are compared by.
    """

    def __init__(self, folder: Path, objective: Objective) -> None:
        self._folder, self._objective = folder, objective
        self._written: dict[str, int] = {}

    def trials_ended(self, record: SearchRecord) -> None:
        """Writes what is new of the trials that do not run."""
        for trial in record.trials:
            done = self._written.get(trial.trial, -1)
            if trial.fate == "running" or done == len(trial.history):
                continue
            writer = tf.summary.create_file_writer(str(self._folder / trial.trial))
            with writer.as_default():
                if done < 0:
                    api.hparams(dict(trial.values), trial_id=trial.trial)
                for evaluation in trial.history[max(done, 0) :]:
                    for name, value in evaluation.metrics.items():
                        tf.summary.scalar(name, value, step=evaluation.examples)
                if trial.score is not None:
                    tf.summary.scalar("score", trial.score, step=max(len(trial.history), 1))
            writer.close()
            self._written[trial.trial] = len(trial.history)
