"""Keras's limits on epochs and steps hold here too."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from same_as_fit import Fit, assert_same

import tfmb
from tfmb.backend import keras
from tfmb.training.keras_api.limits import limited_epochs, limited_steps

X, Y = np.random.default_rng(0).normal(size=(20, 4)), np.ones((20, 1))


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    keras.config.set_max_epochs(2)
    keras.config.set_max_steps_per_epoch(3)
    yield
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


def build() -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_less_is_as_it_was_asked_for() -> None:
    assert limited_epochs(1) == 1
    assert limited_steps(2, "steps") == 2
    with pytest.warns(UserWarning, match=r"set_max_epochs\(2\) holds: 2 epoch\(s\), not 5"):
        assert limited_epochs(5) == 2
    with pytest.warns(UserWarning, match=r"set_max_steps_per_epoch\(3\) holds: steps is 3, not None"):
        assert limited_steps(None, "steps") == 3


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch_size", [4, None])
def test_a_training_is_as_long_as_in_fit(batch_size: int | None) -> None:
    def program(fit: Fit) -> Any:
        model = build()
        return model, [fit(model, X, Y, epochs=5, batch_size=batch_size, validation_data=(X, Y))]

    ours = assert_same(program)
    for given in (dict[str, Any](batch_size=4), {}):
        assert tfmb.evaluate(ours, X, Y, verbose=0, **given) == pytest.approx(ours.evaluate(X, Y, verbose=0, **given))
        assert tfmb.predict(ours, X, **given).shape == ours.predict(X, verbose=0, **given).shape
