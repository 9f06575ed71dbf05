"""A script for a fresh process, FOLDER SCRATCH its arguments: answers rows by the signatures of a SavedModel.

The rows are those in `SCRATCH/inputs.npz`, or else made for the signature and written there. The answers are written to
`outputs.npz`, and those of `serve_bytes`, given the same images as PNG files, to `bytes.npz`.
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

__all__ = ["main"]

_ROWS = 4


def main(folder: str, scratch: str) -> None:
    """Applies the signatures of the SavedModel in `folder`."""
    signatures = tf.saved_model.load(folder).signatures
    serve = signatures["serving_default"]
    path = Path(scratch) / "inputs.npz"
    if not path.exists():
        specs = serve.structured_input_signature[1]
        rows: dict[str, Any] = {name: _sample(spec) for name, spec in specs.items()}
        np.savez(path, **rows)
    with np.load(path, allow_pickle=False) as stored:
        inputs = {name: stored[name] for name in stored.files}
    _write(Path(scratch) / "outputs.npz", serve(**{name: tf.constant(value) for name, value in inputs.items()}))
    images = next(iter(inputs.values()))
    if "serve_bytes" in signatures and images.ndim == 4:
        files = [tf.io.encode_png(image).numpy() for image in images.astype(np.uint8)]
        whole = serve(**{next(iter(inputs)): tf.constant(images.astype(np.uint8).astype(images.dtype))})
        _write(Path(scratch) / "bytes.npz", signatures["serve_bytes"](image_bytes=tf.constant(files)))
        _write(Path(scratch) / "whole.npz", whole)


def _sample(spec: Any) -> np.ndarray:
    """A few rows that the input can take: the same ones every time."""
    shape = [spec.shape[0] or _ROWS, *(8 if size is None else size for size in spec.shape[1:])]
    dtype = spec.dtype.as_numpy_dtype
    numbers = np.random.default_rng(1)
    if spec.dtype.is_floating:
        return numbers.random(shape).astype(dtype)
    if spec.dtype == tf.string:
        return np.full(shape, "text")
    # Small numbers: the input may be the index of an embedding of unknown size.
    return numbers.integers(0, 256 if spec.dtype == tf.uint8 else 2, shape).astype(dtype)


def _write(path: Path, outputs: dict[str, Any]) -> None:
    arrays = {name: value.numpy() for name, value in outputs.items()}
    np.savez(path, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
