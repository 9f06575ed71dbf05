"""The state that a trial goes on from and the weights that it ends with: bytes on their way, whole folders at rest.

A worker makes and takes bytes, and writes nothing: the process of the search alone writes into its directory.
"""

import io
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.errors import DataError
from tfmb.optimizers.optimizer import value_of
from tfmb.storage.atomic import commit_folder, remove_temporary, verify_folder
from tfmb.storage.files import load_arrays, read_plain

__all__ = [
    "drop_states", "keep_state", "keep_weights", "kept_state", "load_weights", "newest_state", "pack_state",
    "pack_weights", "unpack_more", "unpack_state",
]  # fmt: skip

_STATE, _WEIGHTS, _FIRST_LOSS = "state.npz", "weights.npz", "first_loss"


def pack_weights(arrays: Sequence[np.ndarray]) -> bytes:
    """Returns weights as the bytes of an NPZ file."""
    return _packed({f"w{number:05d}": weight for number, weight in enumerate(arrays)})


def pack_state(variables: Sequence[Any], first_loss: float | None, more: dict[str, np.ndarray] | None = None) -> bytes:
    """Returns all that the next update depends on as the bytes of an NPZ file.

    Args:
        variables: of the model and its optimizer.
        first_loss: the loss of the trial's first update, or None.
        more: what `unpack_more` is to return; no name in it begins like a variable's.
    """
    arrays = {f"v{number:05d}": np.asarray(value_of(variable)) for number, variable in enumerate(variables)}
    return _packed({**arrays, **(more or {}), _FIRST_LOSS: np.array(math.nan if first_loss is None else first_loss)})


def unpack_state(state: bytes, variables: Sequence[Any]) -> float:
    """Puts a state back; returns the trial's first loss.

    Raises:
        DataError: it is damaged, or of another model.
    """
    try:
        with np.load(io.BytesIO(state), allow_pickle=False) as found:
            arrays = dict(found.items())
        first_loss = float(arrays.pop(_FIRST_LOSS))
    except Exception as error:  # zipfile and NumPy raise a dozen kinds for a damaged archive
        raise DataError(f"the state of a trial cannot be read ({error}): it is damaged") from error
    values = [arrays[name] for name in sorted(arrays) if name.startswith("v")]
    if [value.shape for value in values] != [tuple(v.shape) for v in variables]:
        raise DataError("the state of a trial is of another model: the code changed; begin the search anew")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return first_loss


def unpack_more(state: bytes) -> dict[str, np.ndarray]:
    """Returns what is in a state, which `unpack_state` has read, besides the variables and the first loss."""
    with np.load(io.BytesIO(state), allow_pickle=False) as found:
        return {name: array for name, array in found.items() if name != _FIRST_LOSS and not name.startswith("v")}


def keep_weights(folder: Path, weights: bytes) -> None:
    """Writes weights into a new folder, whole or not at all; one that is there is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    commit_folder(folder, _writer(_WEIGHTS, weights), {})


def load_weights(folder: Path) -> list[np.ndarray]:
    """Returns the weights that `keep_weights` wrote.

    Raises:
        DataError: they are missing or damaged.
    """
    verify_folder(folder)
    try:
        arrays = load_arrays(folder / _WEIGHTS)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / _WEIGHTS} cannot be read ({error}): it is damaged") from error
    return [arrays[name] for name in sorted(arrays)]


def keep_state(folder: Path, state: bytes, slices: int) -> None:
    """Writes a trial's state after some slices, whole or not at all; the states of earlier slices go."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporary(folder)
    place = _place(folder, slices)
    if not place.exists():
        commit_folder(place, _writer(_STATE, state), {"slices": slices})
    drop_states(folder, slices)


def drop_states(folder: Path, below: int) -> None:
    """Removes the states of less than so many slices."""
    for other in folder.glob("state-*"):
        if other.name < _place(folder, below).name:
            shutil.rmtree(other, ignore_errors=True)


def kept_state(folder: Path, slices: int) -> bytes:
    """Returns the state that `keep_state` wrote.

    Raises:
        DataError: it is missing or damaged.
    """
    place = _place(folder, slices)
    verify_folder(place)
    try:
        return read_plain(place / _STATE, (place / _STATE).stat().st_size)
    except OSError as error:
        raise DataError(f"{place} cannot be read ({error.strerror}): it is damaged") from error


def newest_state(folder: Path, most: int) -> int:
    """Returns the highest number of slices, up to `most`, whose state is kept; 0 for none."""
    return next((slices for slices in range(most, 0, -1) if _place(folder, slices).is_dir()), 0)


def _packed(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _writer(name: str, content: bytes) -> Callable[[Path], None]:
    def write(into: Path) -> None:
        (into / name).write_bytes(content)

    return write


def _place(folder: Path, slices: int) -> Path:
    return folder / f"state-{slices:04d}"
