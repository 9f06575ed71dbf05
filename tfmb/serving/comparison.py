"""Two SavedModels on the same rows: a fresh process against this one, a new version against the one before."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.environment import children
from tfmb.errors import ConfigError, DataError
from tfmb.serving.run_saved_model import sample_rows
from tfmb.serving.signatures import ServedModel, samples_by_name

__all__ = ["answers_in_fresh_process", "compare", "largest_difference", "run_fresh"]

_CLASS = "class_id"


def compare(before: Path, new: Path, served: ServedModel, samples: Any, rows: int) -> dict[str, Any]:
    """Compares the outputs of a new version with those of one before, on the same rows.

    Args:
        before: the folder of the version before, which may be loaded.
        new: the folder of the new version.
        served: the signatures of the new version.
        samples: rows as the model takes them, or None for made-up ones.
        rows: the number of made-up rows.

    Returns:
        The entry `comparison` of the provenance. Outputs that only one of them has are left out.

    Raises:
        ConfigError: the version before takes other inputs.
        DataError: it cannot be used.
    """
    inputs = sample_rows(served.inputs, rows) if samples is None else samples_by_name(served, samples)
    first = answers_in_fresh_process(before, inputs)
    second = answers_in_fresh_process(new, inputs)
    both = [name for name in served.outputs if _comparable(first.get(name), second[name])]
    if not both:
        raise ConfigError(f"--against {before}: none of its outputs ({', '.join(sorted(first))}) can be compared")
    differences = {name: _differences(first[name], second[name]) for name in both if name != _CLASS}
    return {
        "against": before.name,
        "rows": len(next(iter(inputs.values()))),
        "samples": "made-up" if samples is None else "given",
        "outputs": differences,
        "same_class_ids": float(np.mean(first[_CLASS] == second[_CLASS])) if _CLASS in both else None,
    }


def answers_in_fresh_process(folder: Path, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a SavedModel's answers from a new Python process without tfmb or Keras.

    Args:
        folder: the SavedModel's, which may be loaded.
        rows: by the names of its inputs.

    Raises:
        ConfigError: it takes other inputs.
        DataError: it cannot be used.
    """
    with tempfile.TemporaryDirectory() as scratch:
        arrays: dict[str, Any] = {name: _without_objects(value) for name, value in rows.items()}
        np.savez(Path(scratch) / "inputs.npz", **arrays)
        ended = run_fresh(folder, scratch)
        if ended.code == 2:
            raise ConfigError(f"{folder} takes other inputs ({ended.last_words}): it cannot be compared")
        if ended.code:
            raise DataError(f"{folder}: the SavedModel cannot be used in a fresh process ({ended.last_words})")
        with np.load(Path(scratch) / "outputs.npz", allow_pickle=False) as found:
            return dict(found.items())


def run_fresh(folder: Path, scratch: str) -> children.Ended:
    """Runs `run_saved_model.py` on a SavedModel, which may be loaded, and on a folder for rows and answers."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    script = Path(__file__).with_name("run_saved_model.py")
    return children.run([sys.executable, str(script), str(folder), scratch], environment=quiet)


def largest_difference(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The largest difference of two arrays of numbers (0 or 1 for others), and the scale of the expected one."""
    if expected.dtype.kind not in "fiub":
        return float(not np.array_equal(found.astype(np.bytes_), expected.astype(np.bytes_))), 1.0
    error = float(np.max(np.abs(found.astype(np.float64) - expected.astype(np.float64)), initial=0))
    return error, max(1.0, float(np.max(np.abs(expected.astype(np.float64)), initial=0)))


def _without_objects(value: np.ndarray) -> np.ndarray:
    """Strings as NumPy stores them without pickling."""
    return value.astype(np.bytes_) if value.dtype.kind in "OU" else value


def _comparable(first: np.ndarray | None, second: np.ndarray) -> bool:
    return first is not None and first.shape == second.shape and second.dtype.kind in "fiub"


def _differences(first: np.ndarray, second: np.ndarray) -> dict[str, float | None]:
    apart = np.abs(first.astype(np.float64) - second.astype(np.float64))
    found = {"max_difference": float(np.max(apart, initial=0)), "mean_difference": float(np.mean(apart))}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}
