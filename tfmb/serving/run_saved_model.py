"""A script for a fresh process, FOLDER SCRATCH its arguments: answers rows by a SavedModel.

The rows are those in `SCRATCH/inputs.npz`, and the answers are written to `outputs.npz`. Where there are none, rows are
made and written there, and images are given to `serve_bytes` as PNG files too: its answers are in `bytes.npz`, those to
the same pixels in `whole.npz`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["main", "sample_rows"]

_ROWS = 4


def main(folder: str, scratch: str) -> None:
    """Applies the signatures of the SavedModel in `folder` to the arrays in `scratch`.

    Ends with 2 and a line on standard error where it takes other inputs.
    """
    signatures = tf.saved_model.load(folder).signatures
    served = signatures["serving_default"]
    _, specs = served.structured_input_signature
    place = Path(scratch)
    if not (place / "inputs.npz").exists():
        rows = sample_rows(specs, _ROWS)
        _write(place / "inputs.npz", rows)
        _write(place / "outputs.npz", _answer(served, rows))
        if "serve_bytes" in signatures:
            _answer_files(signatures, rows, place)
        return
    with np.load(place / "inputs.npz", allow_pickle=False) as found:
        rows = dict(found.items())
    if odd := _odd(specs, rows):
        print(odd, file=sys.stderr)
        raise SystemExit(2)
    fixed = {spec.shape[0] for spec in specs.values()} - {None}
    _write(place / "outputs.npz", _in_batches(served, rows, min(fixed)) if fixed else _answer(served, rows))


def sample_rows(inputs: dict[str, Any], rows: int) -> dict[str, np.ndarray]:
    """Returns rows that the inputs can take, the same every time; as many as a request must have, if that is fixed."""
    return {name: _sample(spec, rows) for name, spec in inputs.items()}


def _sample(spec: Any, rows: int) -> np.ndarray:
    shape = [spec.shape[0] or rows, *(8 if size is None else size for size in spec.shape[1:])]
    dtype = spec.dtype.as_numpy_dtype
    numbers = np.random.default_rng(0)
    if spec.dtype.is_floating:
        return numbers.random(shape).astype(dtype)
    if spec.dtype == tf.string:
        return np.full(shape, b"text")
    # Small numbers: the input may be the index of an embedding of unknown size.
    return numbers.integers(0, 256 if spec.dtype == tf.uint8 else 2, shape).astype(dtype)


def _answer_files(signatures: Any, rows: dict[str, Any], place: Path) -> None:
    (name, images), *_ = rows.items()
    if images.ndim == 4:
        pixels = images.astype(np.uint8)
        files = np.array([tf.io.encode_png(image).numpy() for image in pixels], object)
        _write(place / "bytes.npz", _answer(signatures["serve_bytes"], {"image_bytes": files}))
        _write(place / "whole.npz", _answer(signatures["serving_default"], {name: pixels.astype(images.dtype)}))


def _write(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


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
