"""`fit`, `evaluate` and `predict` within the scope of a strategy are what they are outside of it, as in Keras."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import here

import tfmb
from tfmb.backend import keras, tf

pytestmark = [pytest.mark.compile, pytest.mark.filterwarnings("ignore:.*must see every batch")]
optimizers = keras.optimizers
X = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
Y = X[:, :1] * 2.0


def build(optimizer: Any, built: bool = True) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([*([keras.Input((3,))] if built else []), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile(optimizer, keras.losses.MeanSquaredError(), metrics=["mae"])
    return model


def train(model: Any, **given: Any) -> tuple[Any, ...]:
    arguments = {"batch_size": 10, "epochs": 2, "shuffle": False, "verbose": 0, "validation_data": (X, Y), **given}
    history = tfmb.fit(model, X, Y, **arguments).history
    return history, tfmb.evaluate(model, X, Y, verbose=0), tfmb.predict(model, X), model.get_weights()


def assert_equal(found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    assert found[:2] == expected[:2]
    for a, b in zip([found[2], *found[3]], [expected[2], *expected[3]], strict=True):
        np.testing.assert_array_equal(a, b)


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "Adam": lambda: optimizers.Adam(0.1, use_ema=True),
    "Adagrad": lambda: optimizers.Adagrad(0.1),
    "LossScaleOptimizer": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.1)),
}


@pytest.mark.parametrize("name", here(OPTIMIZERS, ["Adam", "Adagrad"], "compile"))
@pytest.mark.parametrize("built", [True, False], ids=["built", "not built"])
def test_a_model_of_a_scope_is_trained_within_it(name: str, built: bool, two_replicas: Any) -> None:
    with two_replicas.scope():
        expected = build(OPTIMIZERS[name](), built)
    outside = train(expected)
    with two_replicas.scope():
        within = train(build(OPTIMIZERS[name](), built))
        made = tf.Variable(1.0)
    assert_equal(within, outside)
    assert two_replicas.extended.variable_created_in_scope(made)  # the scope was entered again
    assert not tf.distribute.has_strategy()


def test_a_model_of_one_device_is_trained_within_its_scope() -> None:
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    outside = train(build("adam"), jit_compile="nothing")
    with strategy.scope():
        assert_equal(train(build("adam"), jit_compile="nothing"), outside)


def test_a_scope_is_entered_again_after_an_error(two_replicas: Any) -> None:
    with two_replicas.scope():
        with pytest.raises(tfmb.errors.ConfigError, match="batch_size"):
            train(build("adam"), batch_size=0)
        assert tf.distribute.get_strategy() is two_replicas


def test_a_fit_of_the_models_own_is_called_where_its_user_stands(two_replicas: Any) -> None:
    class Own(keras.Sequential):
        def fit(self, *arguments: Any, **given: Any) -> Any:
            seen.append(tf.distribute.get_strategy())
            return super().fit(*arguments, **given)

    seen: list[Any] = []
    with two_replicas.scope():
        model = Own([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        tfmb.fit(model, X, Y, batch_size=10, verbose=0)
    assert seen == [two_replicas]
