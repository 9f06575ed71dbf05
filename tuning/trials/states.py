"""The state that a trial goes on from and the weights that it ends with: arrays on their way, files at rest.

A worker writes nothing: the process of the search alone writes into its directory.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.errors import DataError
from tfmb.optimizers.optimizer import value_of
from tfmb.storage.atomic import write_arrays
from tfmb.storage.files import load_arrays

__all__ = ["Arrays", "keep", "kept", "more_of", "newest_state", "numbered", "put_state", "take_state"]

Arrays = dict[str, np.ndarray]
_NUMBERS = _SLICES, _FIRST_LOSS = "slices", "first_loss"
_VARIABLE = "v"
_COUNT = "count"  # of the other arrays in a file: a damaged list of what is in it may be shorter


def numbered(arrays: Iterable[Any], letter: str = "w") -> Arrays:
    """Returns copies of arrays under names that sort in their order: TensorFlow may write into what it gave."""
    return {f"{letter}{number:05d}": np.array(array) for number, array in enumerate(arrays)}


def take_state(variables: Sequence[Any], slices: int, first_loss: float | None, more: Arrays | None = None) -> Arrays:
    """Returns all that the next update depends on.

    Args:
        variables: of the model and its optimizer.
        slices: the number of slices of its budget that the trial has spent.
        first_loss: the loss of its first update, or None.
        more: what `more_of` is to return; no name in it begins like a variable's.
    """
    numbers = {_SLICES: np.array(slices), _FIRST_LOSS: np.array(math.nan if first_loss is None else first_loss)}
    return {**numbers, **numbered(map(value_of, variables), _VARIABLE), **(more or {})}


def put_state(state: Arrays, variables: Sequence[Any]) -> float:
    """Puts a state back; returns the trial's first loss.

    Raises:
        DataError: it is of another model.
    """
    values = [state[name] for name in sorted(state) if name.startswith(_VARIABLE)]
    if [value.shape for value in values] != [tuple(v.shape) for v in variables]:
        raise DataError("the state of a trial is of another model: the code changed; begin the search anew")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return float(state[_FIRST_LOSS])


def more_of(state: Arrays) -> Arrays:
    """Returns what is in a state besides the variables and numbers."""
    return {name: array for name, array in state.items() if name not in _NUMBERS and not name.startswith(_VARIABLE)}


def newest_state(path: Path, most: int) -> tuple[int, Arrays | None]:
    """Returns the number of slices, up to `most`, after which a state is kept, and the state; `(0, None)` for none."""
    state = kept(path) if path.exists() else None
    return (0, None) if state is None or state[_SLICES] > most else (int(state[_SLICES]), state)


def keep(path: Path, arrays: Arrays) -> None:
    """Writes arrays into a file, whole or not at all; one that is there is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, {**arrays, _COUNT: np.array(len(arrays))})


def kept(path: Path) -> Arrays:
    """Returns the arrays that `keep` wrote.

    Raises:
        DataError: they are missing or damaged.
    """
    try:
        found = load_arrays(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): it is damaged") from error
    count = int(found.pop(_COUNT, len(found)))  # files of before 0.2.0 have none
    if count != len(found):
        raise DataError(f"{path} has {len(found)} of {count} arrays: it is damaged")
    return found
