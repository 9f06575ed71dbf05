"""A class above those with a weight ends a training on a dataset, as in Keras; of arrays it counts once."""

from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf

X, Y = np.ones((6, 2), "float32"), np.array([0, 1, 2, 0, 1, 2])


def model() -> Any:
    made = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


def test_a_dataset_with_a_class_above_all_is_not_trained_on() -> None:
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)
    for fit in (keras.Model.fit, tfmb.fit):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError, tfmb.errors.TfmbError)):
            fit(model(), data, class_weight={0: 0.5, 1: 2.0}, shuffle=False, verbose=0)


def test_of_arrays_such_a_class_counts_once() -> None:
    losses = []
    for fit in (keras.Model.fit, tfmb.fit):
        keras.utils.set_random_seed(0)
        losses.append(fit(model(), X, Y, class_weight={0: 0.5, 1: 2.0}, shuffle=False, verbose=0).history["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
