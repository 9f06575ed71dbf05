"""`steps_per_execution` makes as many steps as in Keras, which makes whole executions while there is data."""

from typing import Any

import numpy as np
import pytest
from cases import here
from same_as_fit import Fit, assert_same
from spies import spy

import tfmb
from tfmb.backend import keras, tf
from tfmb.training.keras_api.limits import steps_of_execution, whole_executions

X = np.random.default_rng(0).normal(size=(35, 4))
Y = X[:, :1] * 2.0


def build(executed: int = 2) -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"], steps_per_execution=executed)
    return model


def dataset() -> Any:
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)


def test_what_is_asked_for_is_rounded_up() -> None:
    assert [whole_executions(steps, 3) for steps in (None, 1, 3, 4)] == [None, 3, 3, 6]
    assert [steps_of_execution(model) for model in (build(3), keras.Sequential())] == [3, 1]


DATA: dict[str, Any] = {
    "arrays": lambda: {"x": X, "y": Y, "batch_size": 5},
    "arrays without a size of batches": lambda: {"x": X, "y": Y, "batch_size": None},
    "a dataset that ends": lambda: {"x": dataset()},
    "an endless dataset": lambda: {"x": dataset().repeat()},
    "a dataset of unknown size": lambda: {"x": dataset().filter(lambda *_: True)},
}
FIRST = ["arrays", "an endless dataset"]


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:.*must see every batch", "ignore:.*ran out", "ignore:`shuffle=True` was passed")
@pytest.mark.parametrize("steps", [3, 5])
@pytest.mark.parametrize("data", here([*DATA][:-1], FIRST, "compile"))
def test_a_training_has_as_many_steps_as_in_fit(data: str, steps: int) -> None:
    calls = []

    def program(fit: Fit) -> Any:
        model, callback, given = build(), spy(), DATA[data]()
        x, y = given.pop("x"), given.pop("y", None)
        validation = {"validation_data": x if y is None else (x, y), "validation_steps": steps}
        arrays = (x,) if y is None else (x, y)
        history = fit(model, *arrays, epochs=3, steps_per_epoch=steps, callbacks=[callback], **validation, **given)
        calls.append((callback.calls, callback.params))
        return model, [history]

    assert_same(program)
    assert calls[1] == calls[0]


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:.*ran out")
@pytest.mark.parametrize("data", here(DATA, FIRST, "compile"))
def test_scoring_and_predicting_have_as_many_steps_as_in_keras(data: str) -> None:
    model, given = build(), DATA[data]()
    expected = model.evaluate(**given, steps=3, verbose=0)
    assert tfmb.evaluate(model, **given, steps=3, verbose=0) == pytest.approx(expected, abs=1e-11)
    given.pop("y", None)
    right = model.predict(**given, steps=3, verbose=0)
    np.testing.assert_allclose(tfmb.predict(model, **given, steps=3), right, atol=1e-11)
    assert len(right) == (35 if data.endswith("of batches") else 20)


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:.*ran out")
def test_a_limit_is_rounded_up_too() -> None:
    def program(fit: Fit) -> Any:
        model = build()
        return model, [fit(model, X, Y, epochs=2)]

    keras.config.set_max_steps_per_epoch(3)
    try:
        with pytest.warns(UserWarning, match="steps_per_epoch"):
            assert_same(program)
    finally:
        keras.config.set_max_steps_per_epoch(None)
