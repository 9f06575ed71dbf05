"""A model that fit builds is built as Keras builds it."""

from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf


def nested() -> Any:
    inner = keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(2)], name="inner")
    model = keras.Sequential([keras.layers.Flatten(), inner, keras.layers.Dense(1)], name="outer")
    model.compile("sgd", "mse", jit_compile=False)
    return model


@pytest.mark.parametrize("batches", [False, True], ids=["arrays", "dataset"])
def test_a_nested_model_is_saved_with_keras_shape(batches: bool) -> None:
    x, y = np.ones((6, 2, 2), "float32"), np.ones((6, 1), "float32")
    data = (tf.data.Dataset.from_tensor_slices((x, y)).batch(2), None) if batches else (x, y)
    of_keras, ours = nested(), nested()
    how: dict[str, Any] = {"verbose": 0, "shuffle": not batches}
    of_keras.fit(*data, **how)
    tfmb.fit(ours, *data, **how)
    shapes = [model.get_layer("inner").get_config()["layers"][0]["config"]["batch_shape"] for model in (of_keras, ours)]
    assert shapes == [(None, 4), (None, 4)]
