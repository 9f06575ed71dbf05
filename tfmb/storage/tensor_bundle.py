"""Tensors on disk: written as a TensorFlow checkpoint's bundle, read back without its index."""

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.backend import tf
from tfmb.storage.files import open_plain

__all__ = ["digest_of", "read_bundle", "write_bundle"]

_BUNDLE = "state"


def read_bundle(folder: Path, layout: dict[str, Any]) -> dict[str, np.ndarray]:
    """Reads the tensors of a bundle, which lie one after another in the order in which `write_bundle` got them.

    TensorFlow's own reader would have to parse the index, and ends the process where that is forged.

    Args:
        folder: where the bundle lies.
        layout: name -> [name of the dtype, shape], in the order of the tensors that were written.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has another size, or the layout makes no sense.
    """
    with open_plain(folder / f"{_BUNDLE}.data-00000-of-00001", follow=False) as file:
        content = file.read()
    try:
        dtypes = {key: np.dtype(tf.dtypes.as_dtype(name).as_numpy_dtype) for key, (name, _) in layout.items()}
    except KeyError as error:
        raise ValueError(f"a dtype that is none: {error}") from error
    if any(size < 0 for _, shape in layout.values() for size in shape):
        raise ValueError("a shape that is none")
    sizes = {key: dtypes[key].itemsize * math.prod(shape) for key, (_, shape) in layout.items()}
    if len(content) != sum(sizes.values()):
        raise ValueError(f"{len(content)} bytes of tensors, not {sum(sizes.values())}")
    tensors, at = {}, 0
    for key, (_, shape) in layout.items():
        tensors[key] = np.frombuffer(content[at : at + sizes[key]], dtypes[key]).reshape(tuple(shape))
        at += sizes[key]
    return tensors


def write_bundle(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes the tensors as a TensorFlow checkpoint's bundle, in their own order: `SaveV2` does not sort them.

    Raises:
        OSError: the disk is full or fails.
    """
    try:
        with tf.device("/cpu:0"):
            tf.raw_ops.SaveV2(
                prefix=str(folder / _BUNDLE),
                tensor_names=list(tensors),
                shape_and_slices=[""] * len(tensors),
                tensors=[tf.constant(value) for value in tensors.values()],
            )
    except tf.errors.OpError as error:
        reason = str(error).splitlines()[0]
        code = 28 if "No space left" in reason else 5
        raise OSError(code, f"{os.strerror(code)}: {reason[:150]}") from error
    for leftover in folder.glob(f"{_BUNDLE}_temp*"):
        shutil.rmtree(leftover, ignore_errors=True)


def digest_of(tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = np.ascontiguousarray(tensors[key])
        digest.update(json.dumps([key, value.dtype.name, list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
