"""The reference CNN with its preprocessing, compiled with Keras's Adam: what the benchmarks train."""

from typing import Any

import numpy as np

import tfmb
from benchmarks.peers import LEARNING_RATE, MEAN, STD
from tfmb.backend import keras
from tfmb.data.source import Normalization

__all__ = ["build", "data"]


def build() -> Any:
    """The model, from uint8 images `[batch, 28, 28, 1]` to logits."""
    model = tfmb.models.with_preprocessing(
        tfmb.models.cnn((28, 28, 1), 10, seed=0), (28, 28, 1), Normalization(mean=MEAN, std=STD)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE), loss=loss, metrics=["accuracy"])
    return model


def data(examples: int) -> tuple[Any, Any]:
    """Random uint8 images and labels."""
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (examples, 28, 28, 1)).astype(np.uint8)
    return images, numbers.integers(0, 10, examples)
