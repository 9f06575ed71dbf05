"""The cache: decoded datasets, each a folder of `.npy` files with their SHA-256; and measurements.

A dataset is decoded once, and loaded in a moment ever after. A measurement is one small JSON file for each question's
fingerprint.
"""

import hashlib
import json
import math
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.storage.files import open_plain, read_json

__all__ = ["cache_root", "is_folder", "load_arrays", "recall", "remember", "save_arrays"]

_INDEX = "SHA256.json"
_MOST_INDEX_BYTES = 2**20
# An answer has some hundred bytes.
_MOST_ANSWER_BYTES = 2**20


def cache_root() -> Path:
    """`TFMB_CACHE`, else `tfmb` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`)."""
    if folder := os.environ.get("TFMB_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfmb"


def load_arrays(folder: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a cache folder, or None if it is missing, incomplete or does not match its checksums."""
    try:
        index = read_json(folder / _INDEX, _MOST_INDEX_BYTES)
        arrays = {}
        for name, checksum in index.items():
            array = _array(folder / f"{name}.npy")
            if _sha256(array) != checksum:
                return None
            arrays[name] = array
        complete = bool(arrays) and {path.stem for path in folder.glob("*.npy")} == set(arrays)
    except Exception:  # a damaged header raises whatever the parser of Python literals does
        return None
    return arrays if complete else None


def _array(path: Path) -> np.ndarray:
    """Returns the array of a `.npy` file; a header that promises more than the file has is refused first.

    Raises:
        OSError: see `open_plain`.
        ValueError: it is no such file.
    """
    with open_plain(path) as file:
        size, start = os.fstat(file.fileno()).st_size, file.tell()
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if file.tell() + math.prod(shape) * dtype.itemsize != size:
            raise ValueError("it has another size than its header says")
        file.seek(start)
        array: np.ndarray = np.load(file, allow_pickle=False)
        return array


def is_folder(path: Path) -> bool:
    """Whether there is a folder of that name; False if no name can be so long."""
    try:
        return path.is_dir()
    except OSError:
        return False


def save_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays so that `folder` appears whole or not at all; a folder that is there is replaced.

    Raises:
        OSError: the cache cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".tmp-{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        (temporary / _INDEX).write_text(json.dumps({name: _sha256(array) for name, array in arrays.items()}))
        if folder.exists():
            shutil.rmtree(folder)
        try:
            temporary.rename(folder)
        except OSError:
            if load_arrays(folder) is None:  # else another process wrote the same arrays first
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sha256(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def recall(kind: str, fingerprint: dict[str, Any]) -> Any:
    """Returns the answer to a question, as `remember` got it; None if there is none that can be read.

    Args:
        kind: the name of a folder in the cache.
        fingerprint: all that decides the answer.
    """
    try:
        return read_json(_path(kind, fingerprint), _MOST_ANSWER_BYTES)
    except (OSError, ValueError):
        return None


def remember(kind: str, fingerprint: dict[str, Any], answer: Any) -> None:
    """Keeps an answer that JSON can hold. A cache that cannot be written costs the next one a measurement."""
    path = _path(kind, fingerprint)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(answer, allow_nan=False))
        temporary.replace(path)
    except (OSError, ValueError):  # a number that is not finite, too: such an answer is none
        pass


def _path(kind: str, fingerprint: dict[str, Any]) -> Path:
    text = json.dumps(fingerprint, sort_keys=True)
    return cache_root() / kind / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
