"""Which weights leave: merged over replicas, averaged or raw; and the model is as it was afterwards."""

from typing import Any

import numpy as np
import pytest
from replica_copies import copies

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError, DataError
from tfmb.serving.weights import exported_weights, writes

pytestmark = pytest.mark.usefixtures("fresh_keras")

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = X @ np.array([[1.0], [2.0], [3.0]], np.float32)


def linear() -> Any:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])


def values(model: Any) -> list[Any]:
    return [v.numpy() for v in model.trainable_variables]


def same(a: list[Any], b: list[Any]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("of_keras", [False, True], ids=["ours", "a foreign one"])
def test_after_fit_the_averages_leave_or_the_raw_weights(of_keras: bool) -> None:
    def trained(**averages: Any) -> Any:
        model = linear()
        kind = keras.optimizers.Adamax if of_keras else tfmb.optimizers.SGD
        tfmb.fit(model, X, Y, optimizer=kind(0.1, **averages), loss="mse", seed=0, epochs=2, batch_size=4, verbose=0)
        return model

    averaged, plain = trained(use_ema=True, ema_momentum=0.5), trained()
    before = values(averaged)
    assert not same(before, values(plain))
    for kind, expected in (("raw", values(plain)), ("ema", before), (None, before)):
        with exported_weights(averaged, kind) as told:
            assert told == (kind or "ema")
            assert same(values(averaged), expected)
        assert same(values(averaged), before)
    averaged.trainable_variables[0].assign_add(tf.ones((3, 1)))  # they belong to other weights now
    for kind in ("raw", "ema"):
        with pytest.raises(ConfigError, match=r"no averages of .* are known"), exported_weights(averaged, kind):
            pass


def test_averages_that_keras_has_not_put_in_place() -> None:
    model = linear()
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
    for _ in range(2):
        model.train_on_batch(X, Y)
    raw = values(model)
    with exported_weights(model, "raw"):
        assert same(values(model), raw)
    with exported_weights(model, "ema"):
        averages = [average.numpy() for average in model.optimizer._model_variables_moving_average]
        assert same(values(model), averages)
        assert not same(averages, raw)
    assert same(values(model), raw)


def test_without_averages_they_are_refused() -> None:
    model = linear()
    model.compile("sgd", "mse")
    with exported_weights(model, None) as kind:
        assert kind is None
    for kind in ("ema", "raw"):
        with pytest.raises(ConfigError, match=f"weights='{kind}': no averages"), exported_weights(model, kind):
            pass
    with pytest.raises(ConfigError, match="weights='best' must be one of ema, raw"), exported_weights(model, "best"):
        pass


def drift(variable: Any, numbers: list[float]) -> None:
    for copy, number in zip(variable.value.values, numbers, strict=True):
        copy.assign(tf.fill(copy.shape, number))


def test_statistics_of_replicas_are_merged_and_drifted_weights_refused(two_replicas: Any) -> None:
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    norm = model.layers[0]
    drift(norm.moving_mean, [0.0, 1.0])
    with exported_weights(model, None):
        assert [copy.tolist() for copy in copies(norm.moving_mean.value)] == [[0.5] * 3] * 2
    assert [copy.tolist() for copy in copies(norm.moving_mean.value)] == [[0.0] * 3, [1.0] * 3]
    drift(norm.gamma, [1.0, 2.0])
    with pytest.raises(DataError, match=r"copies of .*gamma differ"), exported_weights(model, None):
        pass


def test_weights_that_are_not_finite_are_refused() -> None:
    model = linear()
    model.trainable_variables[0].assign([[1.0], [np.inf], [0.0]])
    with pytest.raises(DataError, match="kernel is not finite"), exported_weights(model, None):
        pass


def test_what_was_put_in_place_is_taken_back_after_a_failure(two_replicas: Any) -> None:
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    drift(model.layers[0].moving_mean, [0.0, 1.0])
    with pytest.raises(ConfigError), exported_weights(model, None):
        raise ConfigError("no")
    assert [copy.tolist() for copy in copies(model.layers[0].moving_mean.value)] == [[0.0] * 3, [1.0] * 3]
    assert writes(model)
