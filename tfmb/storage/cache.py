"""The cache: decoded datasets, each a folder of `.npy` files that appears whole; and measurements.

A dataset is decoded once, and loaded in a moment ever after. A measurement is one small JSON file for each question's
fingerprint.
"""

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.storage.atomic import commit_folder, verify_folder
from tfmb.storage.files import open_plain, read_json

__all__ = ["cache_root", "is_folder", "load_arrays", "recall", "remember", "save_arrays"]

# An answer has some hundred bytes.
_MOST_ANSWER_BYTES = 2**20


def cache_root() -> Path:
    """`TFMB_CACHE`, else `tfmb` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`)."""
    if folder := os.environ.get("TFMB_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfmb"


def load_arrays(folder: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a cache folder, or None if it is missing, incomplete or does not match its checksums."""
    arrays = {}
    try:
        for name in verify_folder(folder)["files"]:
            with open_plain(folder / name, follow=False) as file:
                arrays[Path(name).stem] = np.load(file, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return arrays or None


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

    def write(temporary: Path) -> None:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        commit_folder(folder, write, {}, replaces=True)
    except OSError:
        if load_arrays(folder) is None:  # else another process wrote the same arrays first
            raise


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
