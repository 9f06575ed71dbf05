"""A run's directory: its record, logs, TensorBoard events, weights. Nothing in it is ever overwritten."""

import contextlib
import hashlib
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from tfmb.errors import DataError, DirectoryError
from tfmb.runs.run_record import RUN_FILE, TEMPORARY_RUN_FILE, read_run
from tfmb.storage.atomic import write_arrays
from tfmb.storage.files import load_arrays
from tfmb.storage.folders import PROBE, check_name, probe, sync
from tfmb.storage.lock import LOCK_FILE, DirectoryLock

__all__ = [
    "RAW_WEIGHTS_FILE",
    "create_run_dir",
    "hash_of_raw_weights",
    "hash_weights",
    "load_weights",
    "open_run_dir",
    "save_weights",
    "versions",
]

WEIGHTS_FILE = "weights.npz"
RAW_WEIGHTS_FILE = "raw_weights.npz"  # what the averages took the place of: the trainable ones only
_PACKAGES = ("tfmb", "tensorflow", "keras", "numpy", "tensorflow-datasets")


def create_run_dir(path: str | Path) -> tuple[Path, DirectoryLock]:
    """Makes the directory of a new run and locks it. One that holds only our marker is taken over.

    Raises:
        DirectoryError: it holds a run or other files, is in use, or cannot be made.
    """
    check_name(path, "--run-dir")
    path = Path(path).expanduser()
    lock = DirectoryLock(path)
    try:
        if (path / RUN_FILE).exists():
            raise DirectoryError(f"{path} holds a run already: give another --run-dir, or --resume {path}")
        if path.is_dir() and any(not _is_ours(entry.name) for entry in path.iterdir()):
            raise DirectoryError(f"{path} is not empty: give a new directory")
        new = {path, path.parent, *(folder for folder in path.parents if not folder.exists())}
        path.mkdir(parents=True, exist_ok=True)
        for folder in new:  # what is saved in it must not be lost with its name
            with contextlib.suppress(PermissionError):  # a folder that we may not read was not made by us
                sync(folder.parent)
        lock.acquire()
        if (path / RUN_FILE).exists():  # another process was here between the look and the lock
            raise DirectoryError(f"{path} holds a run already: give another --run-dir, or --resume {path}")
        probe(path)
    except DirectoryError:
        lock.release()
        raise
    except OSError as error:
        raise DirectoryError(f"{path} cannot be made or written ({error.strerror}): give another directory") from error
    return path, lock


def open_run_dir(path: str | Path) -> tuple[Path, DirectoryLock]:
    """Locks the directory of a run that is to go on.

    Raises:
        DirectoryError: it is in use or cannot be written.
        DataError: it holds no run.
    """
    check_name(path, "--resume")
    path = Path(path).expanduser()
    read_run(path)
    lock = DirectoryLock(path)
    try:
        lock.acquire()
        probe(path)
    except DirectoryError:
        lock.release()
        raise
    except OSError as error:
        raise DirectoryError(f"{path} cannot be written ({error.strerror}): give another directory") from error
    for name in (TEMPORARY_RUN_FILE, _temporary(WEIGHTS_FILE), _temporary(RAW_WEIGHTS_FILE)):
        (path / name).unlink(missing_ok=True)
    return path, lock


def _is_ours(name: str) -> bool:
    """Whether a name may be in a directory that a killed process of ours had only begun to make."""
    return name in (LOCK_FILE, TEMPORARY_RUN_FILE) or name.startswith(PROBE)


def save_weights(run_dir: Path, weights: Sequence[np.ndarray], name: str = WEIGHTS_FILE) -> str:
    """Writes `weights.npz`, or a file of another name, whole or not at all; returns `hash_weights` of them."""
    write_arrays(run_dir / name, {f"{index:08d}": weight for index, weight in enumerate(weights)})
    return hash_weights(weights)


def load_weights(run_dir: str | Path, checksum: str, name: str = WEIGHTS_FILE) -> list[np.ndarray]:
    """Reads a run's weights and compares them with the checksum in its record.

    Raises:
        DataError: they are missing, damaged or not those.
    """
    path = Path(run_dir) / name
    weights = _read_weights(path)
    if hash_weights(weights) != checksum:
        raise DataError(f"{path} does not match the checksum in {RUN_FILE}: train again")
    return weights


def hash_of_raw_weights(run_dir: Path) -> str | None:
    """`hash_weights` of the weights that the averages took the place of; None if a run has none.

    Raises:
        DataError: they are damaged.
    """
    path = run_dir / RAW_WEIGHTS_FILE
    return hash_weights(_read_weights(path)) if path.exists() else None


def _read_weights(path: Path) -> list[np.ndarray]:
    try:
        arrays = load_arrays(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: the run did not end, or lost its weights: train again") from error
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(f"{path} cannot be read ({reason}): train again") from error
    return [arrays[key] for key in sorted(arrays)]


def hash_weights(weights: Sequence[np.ndarray]) -> str:
    """SHA-256 over dtype, shape and bytes of all weights in canonical order (that of `model.weights`)."""
    digest = hashlib.sha256()
    for weight in weights:
        array = np.asarray(weight)
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _temporary(name: str) -> str:
    return f".tmp-{name}"


def versions() -> dict[str, str]:
    """The versions of Python, of the packages that decide the numbers, and the platform."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
