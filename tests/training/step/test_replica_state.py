"""State that no gradient moves, under two replicas: BatchNorm's statistics, frozen weights, random layers."""

from typing import Any

import numpy as np
import pytest
from replica_copies import copies

import tfmb
from tfmb import models
from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.optimizers import SGD

layers = keras.layers
X = np.random.default_rng(0).normal(2.0, 3.0, size=(13, 4)).astype("float32")
Y = X[:, :1]
FIT: dict[str, Any] = {"batch_size": 13, "shuffle": False, "verbose": 0, "loss": "mse"}
local = pytest.mark.filterwarnings("ignore:.*(normalise by the statistics|draw random numbers)")


def normed(**options: Any) -> Any:
    keras.utils.set_random_seed(1)
    norm = layers.BatchNormalization(name="norm", **options)
    return keras.Sequential([keras.Input((4,)), norm, layers.Dense(1, name="head")])


def test_batch_norm_warns_by_name_and_merges_what_each_replica_saw() -> None:
    with pytest.warns(UserWarning, match=r"norm normalise by the statistics of each of the 2 parts"):
        model = tfmb.fit(normed, X, Y, optimizer=SGD(0.01), devices=2, **FIT).model
    norm = model.get_layer("norm")
    for statistic in (norm.moving_mean, norm.moving_variance):
        first, second = copies(statistic.value)
        np.testing.assert_array_equal(first, second)
    # Parts of 6 and 7 rows: the mean of their means, weighed by rows, is the batch's; the variance is that inside them.
    variance = (6 * X[:6].var(0) + 7 * X[6:].var(0)) / 13
    np.testing.assert_allclose(norm.moving_mean.numpy(), 0.01 * X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), 0.99 + 0.01 * variance, rtol=1e-5)


@pytest.mark.compile
def test_synchronized_batch_norm_gives_one_replicas_answer_without_a_warning() -> None:
    def build() -> Any:
        return normed(synchronized=True)

    one, two = (tfmb.fit(build, X, Y, optimizer=SGD(0.01), epochs=3, devices=r, **FIT).model for r in (1, 2))
    for a, b in zip(two.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("partition", [{"virtual_replicas": 2}, {"micro_batch_size": 4}], ids=["virtual", "micro"])
def test_synchronized_batch_norm_is_refused_where_parts_follow_each_other(partition: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"norm cannot be synchronised over parts .* synchronized=False"):
        tfmb.fit(lambda: normed(synchronized=True), X, Y, optimizer=SGD(0.01), **partition, **FIT)


@local
def test_batch_norm_takes_a_last_batch_of_one_example() -> None:
    # The other replica's part is empty: it says nothing about the statistics, and the loss stays finite.
    arguments = {**FIT, "batch_size": 12, "epochs": 2}
    history = tfmb.fit(normed, X, Y, optimizer=SGD(0.01), devices=2, **arguments)
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(weights).all() for weights in history.model.get_weights())


@pytest.mark.compile
@local
def test_frozen_weights_keep_their_bits() -> None:
    def build() -> Any:
        keras.utils.set_random_seed(1)
        frozen = layers.Dense(50, "tanh", name="frozen", trainable=False)
        known = layers.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[0.1, 0.2, 0.3, 0.4])
        rest = layers.BatchNormalization(trainable=False, name="rest")
        model = keras.Sequential([keras.Input((4,)), known, frozen, rest, layers.Dense(1)])
        model.get_layer("rest").set_weights([np.full(50, value, "float32") for value in (1.0, 0.0, 0.3, 0.7)])
        return model

    before = [v.numpy() for v in build().non_trainable_variables]
    model = tfmb.fit(build, X, Y, optimizer=SGD(0.01), epochs=5, devices=2, **FIT).model
    assert len(before) >= 6
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        for copy in copies(variable.value):
            np.testing.assert_array_equal(copy, value, err_msg=variable.path)


@pytest.mark.compile
def test_stock_random_layers_warn_by_name() -> None:
    def build() -> Any:
        model = models.mlp((4,), 1, dropout=0.5)  # whose dropout is ours, and is not named
        return keras.Sequential([layers.GaussianNoise(0.1, name="noise"), layers.Dropout(0.1), *model.layers])

    with pytest.warns(
        UserWarning, match=r"^noise, dropout\w* draw random numbers that depend on the number of replicas"
    ):
        history = tfmb.fit(build, X, Y, optimizer=SGD(0.01), devices=2, **FIT)
    assert np.isfinite(history.history["loss"]).all()


def test_one_replica_never_warns() -> None:
    # Warnings are errors here.
    def build() -> Any:
        return keras.Sequential([*normed().layers, *models.mlp((1,), 1, dropout=0.5).layers])

    tfmb.fit(build, X, Y, optimizer=SGD(0.01), devices=1, **FIT)
