"""What a trial goes on from, and the weights that it ends with: folders that are whole or not there."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.errors import DataError
from tfmb.optimizers.optimizer import value_of
from tfmb.storage.atomic import commit_folder, remove_temporary, verify_folder
from tfmb.storage.files import load_arrays

__all__ = ["load_state", "load_weights", "newest_state", "save_state", "save_weights"]

_STATE, _WEIGHTS = "state.npz", "weights.npz"


def save_weights(folder: Path, arrays: Sequence[np.ndarray]) -> None:
    """Writes weights into a new folder, whole or not at all; one that is there is replaced."""
    weights: dict[str, Any] = {f"w{number:05d}": weight for number, weight in enumerate(arrays)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    commit_folder(folder, lambda into: np.savez(into / _WEIGHTS, **weights), {})


def load_weights(folder: Path) -> list[np.ndarray]:
    """What `save_weights` wrote.

    Raises:
        DataError: it is missing or damaged.
    """
    verify_folder(folder)
    arrays = _arrays(folder / _WEIGHTS)
    return [arrays[name] for name in sorted(arrays)]


def save_state(folder: Path, variables: Sequence[Any], slices: int, first_loss: float | None) -> None:
    """Writes all that the next update depends on, whole or not at all; what was saved of an earlier slice goes."""
    arrays: dict[str, Any] = {
        f"v{number:05d}": np.asarray(value_of(variable)) for number, variable in enumerate(variables)
    }
    arrays["first_loss"] = np.array(math.nan if first_loss is None else first_loss)
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporary(folder)
    place = _place(folder, slices)
    if not place.exists():  # where another process did the same slice before
        commit_folder(place, lambda into: np.savez(into / _STATE, **arrays), {"slices": slices})
    for other in folder.glob("state-*"):
        if other.name < place.name:  # a later one is of another process, which took the trial over
            shutil.rmtree(other, ignore_errors=True)


def load_state(folder: Path, variables: Sequence[Any], slices: int) -> float:
    """Puts a saved state back; returns the trial's first loss.

    Raises:
        DataError: it is missing, damaged or of another model.
    """
    place = _place(folder, slices)
    verify_folder(place)
    arrays = _arrays(place / _STATE)
    first_loss = float(arrays.pop("first_loss"))
    values = [arrays[name] for name in sorted(arrays)]
    if [value.shape for value in values] != [tuple(v.shape) for v in variables]:
        raise DataError(f"{place} is of another model: the code changed; begin the search anew")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return first_loss


def newest_state(folder: Path | None, most: int) -> int:
    """The highest number of slices, up to `most`, whose state is saved; 0 for none."""
    if folder is None:
        return 0
    return next((slices for slices in range(most, 0, -1) if _place(folder, slices).is_dir()), 0)


def _place(folder: Path, slices: int) -> Path:
    return folder / f"state-{slices:04d}"


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_arrays(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): it is damaged") from error
