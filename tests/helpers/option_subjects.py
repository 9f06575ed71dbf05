"""What the fuzzed command lines work on: data and models by reference, and a folder of runs, exports, images and files.

A training of these takes about a second.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from loops import loop

from tfmb.backend import keras, tf

__all__ = ["build", "build_searched", "by_hand", "load", "load_table", "load_train", "write_files"]

by_hand = loop()  # for `verify`
_CLASSES, _SHAPE = 3, (8, 8, 1)


def _images(count: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(count)
    y = draw.integers(0, _CLASSES, count)
    y[:_CLASSES] = range(_CLASSES)
    return (draw.integers(0, 128, (count, *_SHAPE)) + 40 * y[:, None, None, None]).astype("uint8"), y


def load() -> Any:
    """Small images, with a test split."""
    return _images(60), _images(20)


def load_train() -> Any:
    """Small images without a test split."""
    return _images(60)


def load_table() -> Any:
    """Rows of numbers."""
    x, y = _images(60)
    return x[:, 0, :, 0] / np.float32(255), y


def build() -> Any:
    """A compiled model of such images."""
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input(_SHAPE), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(_CLASSES, "softmax")]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def build_searched(hp: Any) -> Any:
    """The same with a choice, whose optimizer the search chooses."""
    layers = keras.layers
    hidden = layers.Dense(hp.Choice("units", [4, 8]), "tanh")
    last = layers.Dense(_CLASSES, "softmax")
    model = keras.Sequential([keras.Input(_SHAPE), layers.Rescaling(1 / 255), layers.Flatten(), hidden, last])
    model.compile(None, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def write_files(folder: str) -> None:
    """Images and IDX files there; in a process of its own, because TensorFlow starts."""
    place = Path(folder)
    pixels = _images(3)[0][0]
    (place / "grey.png").write_bytes(tf.io.encode_png(pixels).numpy())
    (place / "colour.jpg").write_bytes(tf.io.encode_jpeg(np.repeat(np.repeat(pixels, 3, -1), 4, 0)).numpy())
    idx = place / "idx"
    idx.mkdir()
    for prefix, (x, y) in (("train", _images(60)), ("t10k", _images(20))):
        for stem, array in ((f"{prefix}-images-idx3-ubyte", x[..., 0]), (f"{prefix}-labels-idx1-ubyte", y)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (idx / stem).write_bytes(header + array.astype("uint8").tobytes())
    shutil.copytree(idx, place / "mirror")
