"""A slice of a trial as one function call, in whichever process a search's executor runs it.

A worker keeps nothing of a trial but what it traced and compiled, and writes nothing.
"""

import functools
import pickle
import socket
from importlib import metadata
from pathlib import Path

from tfmb.errors import ConfigError
from tfmb.storage.files import read_plain

from ..trials.slices import SliceReport, SliceTask, train_slice
from ..trials.trial import SearchTask, Trainer

__all__ = ["forget_trainers", "run_slice", "versions"]

# Another version of one of these may train other bits, or not understand the task.
_PACKAGES = ("tfmb", "tensorflow", "keras", "keras-tuner", "numpy")
# The trainer of the search that this process worked for last.
_trainers: dict[str, Trainer] = {}


@functools.cache
def versions() -> dict[str, str]:
    """Returns the versions that a worker must share with the search."""
    return {name: metadata.version(name) for name in _PACKAGES}


def run_slice(shared: SearchTask | Path, task: SliceTask) -> SliceReport:
    """Trains a slice with the data, traces and compiled programs of the slices before, of one search at a time.

    Args:
        shared: what the search's trials share, or the file that it lies in.
        task: what to do.

    Raises:
        ConfigError: other versions here than in the search; the file is not to be seen from here; or see `train_slice`.
    """
    if task.search not in _trainers:
        for name, here in versions().items():
            if here != task.versions[name]:
                where = f"a worker on {socket.gethostname()} has {name} {here}"
                raise ConfigError(f"{where}, and the search {task.versions[name]}: install the same versions")
        _trainers.clear()
        _trainers[task.search] = Trainer(_read(shared) if isinstance(shared, Path) else shared)
    return train_slice(_trainers[task.search], task)


def _read(path: Path) -> SearchTask:
    try:
        return pickle.loads(read_plain(path, path.stat().st_size))
    except OSError as error:
        why = f"a worker cannot read {path} ({error.strerror})"
        raise ConfigError(f"{why}: give a run_dir that all workers see") from error


def forget_trainers() -> None:
    """Gives the memory of data and models in this process back."""
    _trainers.clear()
