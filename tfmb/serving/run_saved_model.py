"""Answers the rows in `inputs.npz` in `outputs.npz` by a SavedModel: a script, run in a fresh process."""

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf


def main(folder: str, scratch: str) -> None:
    """Applies `serving_default` of the SavedModel in `folder` to the arrays in `scratch`.

    Ends with 2 and a line on standard error where it takes other inputs.
    """
    served = tf.saved_model.load(folder).signatures["serving_default"]
    _, specs = served.structured_input_signature
    with np.load(Path(scratch) / "inputs.npz", allow_pickle=False) as found:
        rows = dict(found.items())
    if odd := _odd(specs, rows):
        print(odd, file=sys.stderr)
        raise SystemExit(2)
    fixed = {spec.shape[0] for spec in specs.values()} - {None}
    answers = _in_batches(served, rows, min(fixed)) if fixed else _answer(served, rows)
    np.savez(Path(scratch) / "outputs.npz", **answers)


def _odd(specs: dict[str, Any], rows: dict[str, Any]) -> str:
    """Returns the inputs that do not fit, in a line; empty if all fit."""
    if set(specs) != set(rows):
        return f"{', '.join(sorted(specs))}, not {', '.join(sorted(rows))}"
    for name, spec in specs.items():
        kind = tf.string if rows[name].dtype.kind == "S" else tf.as_dtype(rows[name].dtype)
        if kind != spec.dtype or not spec.shape[1:].is_compatible_with(rows[name].shape[1:]):
            return f"{name}: {spec.dtype.name} {spec.shape[1:]}, not {kind.name} {list(rows[name].shape[1:])}"
    return ""


def _answer(served: Any, rows: dict[str, Any]) -> dict[str, Any]:
    outputs = served(**{name: tf.constant(value) for name, value in rows.items()})
    arrays = {name: value.numpy() for name, value in outputs.items()}
    return {name: value.astype(np.bytes_) if value.dtype.kind == "O" else value for name, value in arrays.items()}


def _in_batches(served: Any, rows: dict[str, Any], size: int) -> dict[str, Any]:
    """The rows a batch at a time, the last one filled up with its first row."""
    count = len(next(iter(rows.values())))
    parts = []
    for start in range(0, count, size):
        part = {name: value[start : start + size] for name, value in rows.items()}
        filled = {name: np.concatenate([v, *[v[:1]] * (size - len(v))]) for name, v in part.items()}
        parts.append({name: value[: min(size, count - start)] for name, value in _answer(served, filled).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


if __name__ == "__main__":
    main(*sys.argv[1:])
