"""`keras.Model.fit` with stock layers and Keras's Adam."""

from collections.abc import Callable
from typing import Any

import tfmb
from benchmarks.peers import DROPOUT, LEARNING_RATE, MEAN, STD, Work, images
from tfmb.backend import keras
from tfmb.data.source import Normalization


def build(work: Work) -> Any:
    """The model with its preprocessing and stock dropout, not compiled."""
    if work.precision != "float32":
        keras.config.set_dtype_policy(f"mixed_{work.precision}")
    if work.model == "cnn":
        layers = keras.layers
        bare = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                layers.Conv2D(32, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(2),
                layers.Conv2D(64, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(2),
                layers.Flatten(),
                layers.Dense(128, activation="relu"),
                layers.Dropout(DROPOUT),
                layers.Dense(10, dtype="float32"),
            ]
        )
    else:
        bare = tfmb.models.MODELS[work.model]((28, 28, 1), 10, seed=0)
    return tfmb.models.with_preprocessing(bare, (28, 28, 1), Normalization(mean=MEAN, std=STD))


def make(work: Work, **execution: Any) -> Callable[[], None]:
    """See `benchmarks.peers`."""
    x, y = images(work)
    model = build(work)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss, **{"jit_compile": False, **execution})
    return lambda: model.fit(x, y, batch_size=work.batch_size, verbose=0)
