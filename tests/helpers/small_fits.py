"""Short trainings of a small model with dropout and batch normalisation, whatever XLA compiles of them."""

from typing import Any

import numpy as np

import tfmb
from tfmb.backend import keras
from tfmb.optimizers import Adam

__all__ = ["LOSS", "X", "Y", "build", "fit"]

layers = keras.layers
X = np.random.default_rng(0).normal(size=(43, 6))  # batches of 8 and one of 3
Y = (X.sum(1) > 0).astype("int64")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def build() -> Any:
    keras.utils.set_random_seed(1)
    hidden = [layers.Dense(8, "softplus"), layers.BatchNormalization(), tfmb.layers.Dropout(0.3)]
    return keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(2)])


def fit(jit_compile: Any, optimizer: Any = None, x: Any = X, **arguments: Any) -> tuple[Any, Any]:
    optimizer = optimizer or Adam(0.01, global_clipnorm=0.5, use_ema=True)
    given: dict[str, Any] = {"batch_size": 8, "epochs": 3, "seed": 3, "verbose": 0, "metrics": ["accuracy"]}
    given |= {"loss": LOSS, "jit_compile": jit_compile, **arguments}
    return tfmb.fit(build, x, Y, optimizer=optimizer, **given), optimizer
