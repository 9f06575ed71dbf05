"""A run's directory: `run.json`, logs, TensorBoard events, weights. Nothing in it is ever overwritten."""

import contextlib
import hashlib
import json
import os
import platform
import stat
import sys
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.errors import DataError, DirectoryError
from tfmb.training.commit import sync
from tfmb.training.lock import LOCK_FILE, DirectoryLock

__all__ = [
    "RAW_WEIGHTS_FILE",
    "RUN_FILE",
    "create_run_dir",
    "hash_of_raw_weights",
    "hash_weights",
    "load_weights",
    "open_run_dir",
    "read_run",
    "save_weights",
    "versions",
    "write_run",
]

RUN_FILE = "run.json"
WEIGHTS_FILE = "weights.npz"
RAW_WEIGHTS_FILE = "raw_weights.npz"  # what the averages took the place of: the trainable ones only
_TEMPORARY_RUN_FILE = f".{RUN_FILE}.tmp"
_MOST_RUN_BYTES = 64 * 2**20
_PACKAGES = ("tfmb", "tensorflow", "keras", "numpy", "tensorflow-datasets")


def create_run_dir(path: str | Path) -> tuple[Path, DirectoryLock]:
    """Makes the directory of a new run and locks it. One that holds only our marker is taken over.

    Raises:
        DirectoryError: it holds a run or other files, is in use, or cannot be made.
    """
    path = Path(path).expanduser()
    lock = DirectoryLock(path)
    try:
        if (path / RUN_FILE).exists():
            raise DirectoryError(f"{path} holds a run already: give another --run-dir, or --resume {path}")
        if path.is_dir() and {entry.name for entry in path.iterdir()} - {LOCK_FILE, _TEMPORARY_RUN_FILE}:
            raise DirectoryError(f"{path} is not empty: give a new directory")
        new = {path, path.parent, *(folder for folder in path.parents if not folder.exists())}
        path.mkdir(parents=True, exist_ok=True)
        for folder in new:  # what is saved in it must not be lost with its name
            with contextlib.suppress(PermissionError):  # a folder that we may not read was not made by us
                sync(folder.parent)
        lock.acquire()
        if (path / RUN_FILE).exists():  # another process was here between the look and the lock
            lock.release()
            raise DirectoryError(f"{path} holds a run already: give another --run-dir, or --resume {path}")
    except OSError as error:
        raise DirectoryError(f"{path} cannot be made or written ({error.strerror}): give another directory") from error
    return path, lock


def open_run_dir(path: str | Path) -> tuple[Path, DirectoryLock]:
    """Locks the directory of a run that shall go on.

    Raises:
        DirectoryError: it is in use or cannot be written.
        DataError: it holds no run.
    """
    path = Path(path).expanduser()
    read_run(path)
    lock = DirectoryLock(path)
    try:
        lock.acquire()
    except OSError as error:
        raise DirectoryError(f"{path} cannot be written ({error.strerror}): give another directory") from error
    for name in (_TEMPORARY_RUN_FILE, _temporary(WEIGHTS_FILE), _temporary(RAW_WEIGHTS_FILE)):
        (path / name).unlink(missing_ok=True)
    return path, lock


def write_run(run_dir: Path, record: dict[str, Any]) -> None:
    """Writes `run.json` whole or not at all."""
    temporary = run_dir / _TEMPORARY_RUN_FILE
    with temporary.open("w") as file:
        json.dump(record, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(run_dir / RUN_FILE)
    sync(run_dir)


def read_run(run_dir: str | Path) -> dict[str, Any]:
    """Reads a run's record.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = Path(run_dir) / RUN_FILE
    try:
        _check_plain(path, _MOST_RUN_BYTES)
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(
            f"{run_dir} holds no run ({RUN_FILE} is missing): give a directory made by `tfmb train`"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}): the run is damaged") from error
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise DataError(f"{path} is no run's record: the run is damaged")
    return record


def save_weights(run_dir: Path, weights: Sequence[np.ndarray], name: str = WEIGHTS_FILE) -> str:
    """Writes `weights.npz`, or a file of another name, whole or not at all; returns `hash_weights` of them."""
    temporary = run_dir / _temporary(name)
    arrays: dict[str, Any] = {f"{index:08d}": weight for index, weight in enumerate(weights)}
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(run_dir / name)
    sync(run_dir)
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
    """`hash_weights` of the weights that the averages took the place of; None where a run has none.

    Raises:
        DataError: they are damaged.
    """
    path = run_dir / RAW_WEIGHTS_FILE
    return hash_weights(_read_weights(path)) if path.exists() else None


def _read_weights(path: Path) -> list[np.ndarray]:
    try:
        _check_plain(path)
        _check_stored(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return [arrays[key] for key in sorted(arrays.files)]
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: the run did not end, or lost its weights: train again") from error
    except Exception as error:  # a damaged zip raises many kinds
        raise DataError(f"{path} cannot be read ({error}): train again") from error


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


def _check_plain(path: Path, most: int = 2**63) -> None:
    """Raises where reading would wait for ever or fill the memory: at a pipe, a device, a file that is too large.

    Raises:
        OSError: it is missing.
        ValueError: it is no plain file, or larger.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > most:
        raise ValueError("it is no plain file" if found.st_size <= most else "it is too large")


def _check_stored(path: Path) -> None:
    """Raises where an archive is packed, as we never write one: it could be of any size unpacked.

    Raises:
        ValueError: it is.
    """
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is packed")


def versions() -> dict[str, str]:
    """The versions of Python, of the packages that decide the numbers, and the platform."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
