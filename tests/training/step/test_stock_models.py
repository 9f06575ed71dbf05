"""What a step of a stock model writes is found without tracing the model, and is what the whole trace finds."""

from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import DivergenceError
from tfmb.training.step import whole_update
from tfmb.training.step.stock_models import is_stock, outputs_of

layers = keras.layers
_random = np.random.default_rng(0)
X, Y = _random.normal(size=(24, 4)).astype("float32"), _random.normal(size=(24, 1)).astype("float32")


def plain() -> Any:
    frozen = layers.BatchNormalization(trainable=False)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="relu", kernel_regularizer="l2", kernel_constraint="max_norm"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            frozen,
            layers.Dense(1),
        ]
    )


def nested() -> Any:
    inner = keras.Sequential([keras.Input((4,)), layers.GaussianNoise(0.1), layers.Dense(4)])
    inner.trainable = False
    inputs = keras.Input((4,))
    steps = layers.Reshape((2, 2))(inner(inputs))
    steps = layers.Bidirectional(layers.GRU(3, dropout=0.1))(steps)
    return keras.Model(inputs, layers.Dense(1)(tfmb.layers.Dropout(0.1)(steps)))


def compiled(model: Any) -> Any:
    model.compile("adam", "mse", metrics=["mae", keras.metrics.RootMeanSquaredError()])
    return model


def train(model: Any, x: Any = X, **given: Any) -> tuple[Any, list[np.ndarray]]:
    keras.utils.set_random_seed(0)
    arguments = {"batch_size": 4, "shuffle": False, "verbose": 0, "jit_compile": False, "seed": 0}
    history = tfmb.fit(model, x, Y[: len(x)], **{**arguments, **given})
    return history.history, [np.asarray(v) for v in model.variables]


@pytest.mark.parametrize("build", [plain, nested])
def test_a_stock_model_trains_as_after_a_whole_trace(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keras.utils.set_random_seed(0)
    one = compiled(build())
    assert is_stock(one)
    outputs = outputs_of(one)
    assert outputs is not None
    assert outputs.shape.as_list() == [None, 1]
    keras.utils.set_random_seed(0)
    two = compiled(build())
    found, weights = train(one)
    monkeypatch.setattr(whole_update, "is_stock", lambda model: False)
    expected, expected_weights = train(two)
    assert found == expected
    for a, b in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("build", "jit_compile"),
    [
        (plain, "nothing"),
        (nested, "nothing"),
        *(pytest.param(plain, how, marks=pytest.mark.compile) for how in ("gradients", "step", "call")),
    ],
)
def test_a_batch_that_is_not_finite_leaves_a_stock_model_as_it_was(build: Any, jit_compile: str) -> None:
    keras.utils.set_random_seed(0)
    model = compiled(build())
    before = [np.asarray(v) for v in model.variables]
    with pytest.raises(DivergenceError):
        train(model, np.full((4, 4), 3e38, "float32"), jit_compile=jit_compile)
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))


def test_only_what_is_written_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    put_back: list[int] = []
    original = whole_update.WholeUpdate._put_back_unless

    def spy(self: Any, stays: Any, written: Any, before: Any) -> None:
        put_back.append(len(written))
        original(self, stays, written, before)

    monkeypatch.setattr(whole_update.WholeUpdate, "_put_back_unless", spy)
    train(compiled(plain()))
    # Means and counts of the loss, mae and rmse; two statistics; a seed. Nothing of the frozen layer.
    assert set(put_back) == {2 + 2 + 2 + 2 + 1}


class Own(keras.layers.Layer):
    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def call(self, inputs: Any) -> Any:
        return inputs


def _doubled(inputs: Any) -> Any:
    return 2 * inputs


class Decay(keras.regularizers.Regularizer):
    def __call__(self, weights: Any) -> Any:
        return keras.ops.sum(weights**2)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: Own(),
        lambda: layers.Lambda(_doubled),
        lambda: layers.Dense(3, activation=_doubled),
        lambda: layers.Dense(3, kernel_regularizer=Decay()),
        lambda: layers.Dense(3, activity_regularizer="l2"),
        lambda: layers.ActivityRegularization(0.1),
        lambda: layers.TimeDistributed(Own()),
    ],
)
def test_a_layer_that_may_write_more_is_traced(layer: Any) -> None:
    inputs = keras.Input((4, 4))
    assert not is_stock(keras.Model(inputs, layer()(inputs)))


def test_a_model_of_ones_own_or_of_open_shapes_is_traced() -> None:
    class Mine(keras.Sequential):
        pass

    assert not is_stock(Mine([keras.Input((4,)), layers.Dense(1)]))
    assert not is_stock(keras.Sequential([layers.Dense(1)]))
    assert outputs_of(keras.Sequential([keras.Input((None, 4)), layers.Dense(1)])) is None


def test_a_variable_that_an_activation_writes_is_found() -> None:
    calls = tf.Variable(0)

    def counting(inputs: Any) -> Any:
        calls.assign_add(1)
        return inputs

    model = compiled(keras.Sequential([keras.Input((4,)), layers.Dense(1, activation=counting)]))
    with pytest.raises(DivergenceError):
        train(model, np.full((4, 4), 3e38, "float32"))
    assert int(calls) == 0
