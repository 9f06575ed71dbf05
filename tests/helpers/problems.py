"""Small problems that advice is asked about in tests."""

from typing import Any

import numpy as np

from tfmb.backend import keras

layers = keras.layers
_random = np.random.default_rng(0)
X = _random.normal(size=(600, 6)).astype("float32")
Y = (X[:, :3].sum(1) + 0.3 * _random.normal(size=600) > 0).astype("int64")


def build() -> Any:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(16, "relu"), layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def build_with_state() -> Any:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(16), layers.BatchNormalization(), layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def load() -> Any:
    """For `--dataset`."""
    return (X, Y), (X[:50], Y[:50])
