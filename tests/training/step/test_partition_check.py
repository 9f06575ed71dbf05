"""A loss or metric that does not add up over parts of a batch is refused by name, before an update of it."""

from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError

layers = keras.layers
_random = np.random.default_rng(0)
X, Y = _random.normal(size=(21, 4)).astype("float32"), _random.normal(size=(21, 3)).astype("float32")
CLASSES, WEIGHTS = _random.integers(0, 3, 21), np.linspace(0.5, 1.5, 21)


def build(loss: Any, activation: str | None = None, **compiled: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation)])
    model.compile("sgd", loss, **compiled)
    return model


def fit(model: Any, y: Any = Y, **given: Any) -> Any:
    return tfmb.fit(model, X, y, **{"batch_size": 8, "verbose": 0, "shuffle": False, "virtual_replicas": 2, **given})


def vector(y_true: Any, y_pred: Any) -> Any:
    """Its first axis is not the rows."""
    there = y_true > 0
    return tf.square(tf.boolean_mask(y_true, there) - tf.boolean_mask(y_pred, there))


def spread(y_true: Any, y_pred: Any) -> Any:
    return tf.math.reduce_std(y_pred - y_true)


def ragged_only(y_true: Any, y_pred: Any) -> Any:
    """It adds up in batches of 8, and not in those of 5."""
    rows = tf.shape(y_pred)[0]
    return tf.where(rows % 4 == 0, tf.reduce_mean(y_pred), tf.math.reduce_std(y_pred))


class Spread(keras.metrics.Mean):
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().update_state(tf.math.reduce_std(y_pred))


class OwnLoss(keras.Sequential):
    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        return spread(y, y_pred)


@pytest.mark.parametrize(
    "partition", [{"virtual_replicas": 2}, {"virtual_replicas": "auto", "micro_batch_size": 3}], ids=str
)
@pytest.mark.parametrize("loss", [vector, spread])
def test_a_loss_that_does_not_add_up(loss: Any, partition: dict[str, Any]) -> None:
    model = build(loss)
    before = model.get_weights()
    with pytest.raises(
        ConfigError, match=f"the loss '{loss.__name__}' of a whole batch is not what its parts add up to"
    ):
        fit(model, **partition)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    assert int(model.optimizer.iterations) == 0


def test_a_smaller_last_batch_is_looked_at_too() -> None:
    model = build(ragged_only)
    with pytest.raises(ConfigError, match="ragged_only"):
        fit(model)
    assert int(model.optimizer.iterations) == 2


@pytest.mark.compile
@pytest.mark.parametrize("on_divergence", ["stop", "skip"])
def test_what_is_refused_is_no_batch_to_skip(on_divergence: str) -> None:
    with pytest.raises(ConfigError, match="spread"):
        fit(build(spread), on_divergence=on_divergence)


@pytest.mark.compile
def test_two_replicas() -> None:
    with pytest.raises(ConfigError, match="spread"):
        fit(build(spread), virtual_replicas="auto", devices=2)


def test_a_models_own_loss() -> None:
    model = OwnLoss([keras.Input((4,)), layers.Dense(3)])
    model.compile("sgd")
    with pytest.raises(ConfigError, match="the model's own compute_loss of a whole batch"):
        fit(model)


def test_a_metric_that_does_not_add_up() -> None:
    with pytest.raises(ConfigError, match="the metric 'spread' of a whole batch"):
        fit(build("mse", metrics=["mae", Spread(name="spread")]))


class Gauge(keras.layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.seen = keras.metrics.Mean(name="seen")

    def call(self, inputs: Any) -> Any:
        self.seen.update_state(keras.ops.mean(inputs))
        return inputs


def test_a_metric_that_a_layer_updates() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Gauge()])
    model.compile("sgd", "mse")
    with pytest.raises(ConfigError, match="the metric 'seen' that the model or a layer updates sees parts"):
        fit(model)


SOUND: dict[str, Any] = {
    "mean": {"loss": "mse", "metrics": ["mae", "cosine_similarity"]},
    "softmax": {"loss": "sparse_categorical_crossentropy", "activation": "softmax", "metrics": ["accuracy"]},
    "logits": {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
    "sum": {"loss": keras.losses.MeanSquaredError(reduction="sum")},
    "Huber": {"loss": keras.losses.Huber(0.1)},
    "scalar": {"loss": lambda y_true, y_pred: tf.reduce_mean(tf.square(y_true - y_pred))},
}


@pytest.mark.compile
@pytest.mark.parametrize("where", [{"virtual_replicas": 4}, {"virtual_replicas": "auto", "devices": 2}], ids=str)
@pytest.mark.parametrize("name", SOUND)
def test_what_adds_up_is_let_through_and_trains_as_whole_batches(name: str, where: dict[str, Any]) -> None:
    y = CLASSES if name in ("softmax", "logits") else Y
    whole, partition = (
        fit(build(**SOUND[name]), y, epochs=2, sample_weight=None if name == "scalar" else WEIGHTS, **given)
        for given in ({"virtual_replicas": "auto"}, where)
    )
    for key, values in whole.history.items():
        np.testing.assert_allclose(partition.history[key], values, rtol=1e-5)


def test_one_number_for_a_batch_with_weights_is_no_mean_over_its_rows() -> None:
    with pytest.raises(ConfigError, match="lambda"):
        fit(build(**SOUND["scalar"]), sample_weight=WEIGHTS)


@pytest.mark.compile
def test_a_batch_of_rows_of_unequal_length_is_refused() -> None:
    rows = tf.RaggedTensor.from_row_lengths(np.arange(54) % 9, [3] * 18)
    data = tf.data.Dataset.from_tensor_slices((rows, np.ones((18, 1), "float32"))).batch(5)

    class Bag(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = layers.Embedding(9, 4), layers.Dense(1)

        def call(self, words: Any) -> Any:
            dense = words.to_tensor() if isinstance(words, tf.RaggedTensor) else words
            return self.out(tf.reduce_mean(self.table(dense), 1))

    model = Bag()
    model(rows[:2])
    model.compile("sgd", "mse")
    tfmb.fit(model, data, verbose=0)
    with pytest.raises(ConfigError, match="a batch of RaggedTensor cannot be cut"):
        tfmb.fit(model, data, verbose=0, virtual_replicas=2)


@pytest.mark.compile
def test_a_loss_that_wants_rows_is_not_given_a_part_without_any() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5, 3)), layers.Dense(4)])
    model.compile("sgd", keras.losses.CTC(), jit_compile=False)
    x, y = _random.normal(size=(9, 5, 3)), _random.integers(1, 4, (9, 2))
    given: dict[str, Any] = {
        "batch_size": 4,
        "verbose": 0,
        "shuffle": False,
    }  # the last batch has one row, and two parts
    expected = keras.models.clone_model(model)
    expected.set_weights(model.get_weights())
    expected.compile("sgd", keras.losses.CTC(), jit_compile=False)
    losses = expected.fit(x, y, **given).history["loss"]
    found = tfmb.fit(model, x, y, virtual_replicas=2, **given).history["loss"]
    np.testing.assert_allclose(found, losses, rtol=1e-5)
