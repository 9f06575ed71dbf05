"""Our Keras callbacks, in `fit` and in `tfmb.fit`."""

import math
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras
from tfmb.errors import ConfigError

pytestmark = pytest.mark.usefixtures("fresh_keras")

X = np.random.default_rng(0).normal(size=(400, 5)).astype("float32")
Y = (X.sum(1) + np.random.default_rng(1).normal(size=400) > 0).astype("int64")


def build() -> Any:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_fit_logs_the_noise_scale() -> None:
    model, noise = build(), tfmb.callbacks.NoiseScale(X, Y, batch_size=16, every=1)
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[noise])
    values = history.history["noise_scale"]
    assert len(values) == 3
    found = noise.estimate()
    assert found.value == values[-1]
    assert found.low is not None
    assert found.low < values[-1]


@pytest.mark.compile
def test_it_agrees_with_the_loop_that_needs_no_gradients_of_its_own() -> None:
    model, noise = build(), tfmb.callbacks.NoiseScale(X, Y, batch_size=16, every=1, window=None)
    model.optimizer.learning_rate = 1e-9  # both look at the same weights
    model.fit(X, Y, batch_size=32, epochs=8, verbose=0, callbacks=[noise])
    history = tfmb.fit(build(), X, Y, 32, 8, seed=1, verbose=0, virtual_replicas=2, measure_noise_scale=True,
                       optimizer=tfmb.optimizers.SGD(1e-9))  # fmt: skip
    theirs = noise.estimate().value
    assert theirs is not None
    assert theirs == pytest.approx(np.mean(history.history["noise_scale"]), rel=0.35)


@pytest.mark.filterwarnings("ignore:NoiseScale must see every batch")
def test_it_works_in_our_loop_and_leaves_the_weights_alone() -> None:
    weights = []
    for callbacks in ([], [tfmb.callbacks.NoiseScale(X, Y, batch_size=16, every=3)]):
        model = build()
        tfmb.fit(model, X, Y, epochs=2, seed=1, verbose=0, callbacks=callbacks)
        weights.append([w.tobytes() for w in model.get_weights()])
    assert weights[0] == weights[1]


def test_too_few_measurements_are_nan() -> None:
    history = build().fit(X, Y, verbose=0, callbacks=[tfmb.callbacks.NoiseScale(X, Y, every=10)])
    assert math.isnan(history.history["noise_scale"][0])


@pytest.mark.parametrize(
    ("given", "words"),
    [({"batch_size": 300}, "two batches of 300 are more than the 400"), ({"every": 0}, "every=0 must be an integer")],
)
def test_arguments_that_make_no_sense(given: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tfmb.callbacks.NoiseScale(X, Y, **given)
