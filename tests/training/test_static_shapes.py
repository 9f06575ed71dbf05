"""Batches of one static shape: rows that only fill them up count for nothing, or the run is refused by name."""

from typing import Any

import matrix
import numpy as np
import pytest
from cases import here_by_name

import tfmb
from tfmb.backend import keras, tf
from tfmb.data.batches import Order, batched, fill_up
from tfmb.data.source import Source
from tfmb.distribution import make_strategy
from tfmb.errors import ConfigError
from tfmb.optimizers import SGD, Adam
from tfmb.training import inference, scoring

layers = keras.layers
X = np.random.default_rng(0).normal(size=(11, 4))
Y = np.arange(11) % 3
WEIGHTS = np.linspace(0.2, 2.0, 11)
WHERE: dict[str, dict[str, Any]] = {
    "1 replica": {},
    "2 replicas": {"devices": 2},
    "4 replicas": {"devices": 4},
    "micro": {"micro_batch_size": 2},
    "2 replicas, micro": {"devices": 2, "micro_batch_size": 1},
    "xla": {"jit_compile": True},
}


def logits() -> Any:
    """The loss, made in today's float type: Keras computes it in that."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def mlp() -> Any:
    hidden = layers.Dense(5, "tanh", kernel_regularizer="l2", kernel_initializer=keras.initializers.GlorotUniform(1))
    last = layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(2))
    return keras.Sequential([keras.Input((4,)), hidden, tfmb.layers.Dropout(0.3), last])


def fit(build: Any = mlp, x: Any = X, y: Any = Y, **arguments: Any) -> Any:
    given: dict[str, Any] = {"batch_size": 4, "epochs": 3, "optimizer": Adam(0.01), "loss": logits(), "seed": 3}
    return tfmb.fit(build, x, y, **{**given, "verbose": 0, **arguments})


def assert_same(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    for a, b in zip(found.model.get_weights(), expected.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    assert found.history.keys() == expected.history.keys()
    for key, values in expected.history.items():
        np.testing.assert_allclose(found.history[key], values, rtol=0, atol=max(tolerance, 1e-7), err_msg=key)


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("where", here_by_name(WHERE, ["4 replicas", "micro"]))
def test_answer_is_that_of_ragged_batches(where: dict[str, Any], weights: Any) -> None:
    metrics = ["accuracy", "sparse_categorical_crossentropy"]
    data = {"sample_weight": weights, "metrics": metrics, "validation_data": (X[:7], Y[:7]), "validation_batch_size": 4}
    assert_same(fit(pad_batches=True, **where, **data), fit(**data))


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("where", here_by_name({name: WHERE[name] for name in ("2 replicas", "micro")}, ["2 replicas"]))
def test_masks_are_counted_as_keras_counts_them(where: dict[str, Any]) -> None:
    problem = matrix.MODELS["lstm"]()
    y = [part[:11] for part in problem.y]
    found = []
    for static in (False, True):
        keras.utils.set_random_seed(5)
        model = problem.build()
        fit(model, problem.x[:11], y, loss=[logits(), "mse"], optimizer=SGD(0.1), pad_batches=static, **where)
        found.append(model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_other_reductions(reduction: str) -> None:
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    given = {"x": X, "y": X[:, :3], "loss": loss, "sample_weight": WEIGHTS}
    runs = [fit(pad_batches=static, optimizer=SGD(0.01), **given) for static in (True, False)]
    assert_same(runs[0], runs[1], 1e-6)


def test_metrics_leave_padding_out() -> None:
    metrics: list[Any] = [keras.metrics.AUC(name="auc"), keras.metrics.Precision(name="precision"), "mae"]
    metrics.append(keras.metrics.R2Score(name="r2"))
    target = (Y == 1).astype("float32")[:, np.newaxis]

    def build() -> Any:
        init = keras.initializers.GlorotUniform(1)
        return keras.Sequential([keras.Input((4,)), layers.Dense(1, "sigmoid", kernel_initializer=init)])

    given = {"y": target, "loss": "binary_crossentropy", "metrics": metrics}
    runs = [fit(build, pad_batches=static, optimizer=SGD(0.1), **given) for static in (True, False)]
    assert_same(runs[0], runs[1], 1e-6)


@pytest.mark.compile
def test_same_bits_on_every_number_of_devices() -> None:
    runs = [fit(devices=n, virtual_replicas=4, pad_batches=True).model.get_weights() for n in (1, 2, 4)]
    for other in runs[1:]:
        for a, b in zip(other, runs[0], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.compile
@pytest.mark.parametrize("where", WHERE.values(), ids=WHERE)
def test_layers_see_one_static_shape(where: dict[str, Any]) -> None:
    seen: list[Any] = []

    class Recorder(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            if isinstance(inputs, tf.Tensor):  # and not Keras's symbol while the model is built
                seen.append(inputs.shape[0])
            return inputs

    def build() -> Any:
        return keras.Sequential([keras.Input((4,)), Recorder(), layers.Dense(3)])

    fit(build, pad_batches=True, **where)
    parts = {"devices": 1, "micro_batch_size": 4, **where}
    rows = -(-4 // max(parts["devices"], 4 // parts["micro_batch_size"]))
    # The whole batch's shape is seen once, where the losses and metrics are made for the outputs' shapes.
    assert rows in seen
    assert set(seen) <= {None, rows, 4}, seen


def normed() -> Any:
    return keras.Sequential([keras.Input((4,)), layers.BatchNormalization(name="norm"), layers.Dense(3)])


def test_batch_norm_is_refused_only_where_something_is_filled_up() -> None:
    with pytest.raises(ConfigError, match=r"norm would take the rows that fill up .* pad_batches=False"):
        fit(normed, pad_batches=True)
    with (
        pytest.warns(UserWarning, match="norm normalise by the statistics"),
        pytest.raises(ConfigError, match="norm would take the rows"),
    ):
        fit(normed, X[:9], Y[:9], batch_size=3, devices=2, pad_batches=True)
    history = fit(normed, X[:8], Y[:8], pad_batches=True)
    assert np.isfinite(history.history["loss"]).all()


def test_frozen_batch_norm_is_taken() -> None:
    def build() -> Any:
        model = normed()
        model.get_layer("norm").trainable = False
        return model

    assert np.isfinite(fit(build, pad_batches=True).history["loss"]).all()


class OwnLoss(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        del x, sample_weight
        return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True))


@pytest.mark.compile
def test_what_cannot_leave_rows_out_is_refused_by_name() -> None:
    def active() -> Any:
        return keras.Sequential([keras.Input((4,)), layers.Dense(3, activity_regularizer="l2")], name="active")

    def mean(y_true: Any, y_pred: Any) -> Any:
        return tf.reduce_mean(tf.square(tf.cast(y_true, y_pred.dtype)[:, tf.newaxis] - y_pred))

    with pytest.raises(ConfigError, match=r"layers of 'active' add count the rows that fill up"):
        fit(active, pad_batches=True)
    with pytest.raises(ConfigError, match=r"OwnLoss.compute_loss cannot leave out the rows"):
        fit(OwnLoss, pad_batches=True)
    with pytest.raises(ConfigError, match=r"the loss mean returns one number for a batch"):
        fit(loss=mean, pad_batches=True)
    with pytest.raises(ConfigError, match=r"the metric 'mean' returns one number for a batch"):
        fit(metrics=[mean], pad_batches=True)
    adjusted = keras.metrics.R2Score(num_regressors=2, name="adjusted")
    with pytest.raises(ConfigError, match=r"the metric 'adjusted' counts the rows"):
        fit(y=X[:, :3], loss="mse", metrics=[adjusted], pad_batches=True)


@pytest.mark.compile
def test_dataset_must_have_batches_of_a_known_size() -> None:
    data = tf.data.Dataset.from_tensor_slices((X, Y))
    with pytest.raises(ConfigError, match=r"pad_batches needs batches of a known size.*drop_remainder=True"):
        fit(mlp, data.batch(4), None, batch_size=None, pad_batches=True)
    whole = data.batch(4, drop_remainder=True)
    options: dict[str, Any] = {"y": None, "batch_size": None, "devices": 2}
    assert_same(fit(mlp, whole, pad_batches=True, **options), fit(mlp, whole, **options), 1e-6)


def test_tpus_always_have_static_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    # There is no TPU here: what is asked of a strategy is asked of a stand-in.
    from tfmb import distribution

    assert not distribution.needs_static_shapes(make_strategy("one-device"))
    monkeypatch.setattr(tf.distribute, "TPUStrategy", tf.distribute.OneDeviceStrategy)
    assert distribution.needs_static_shapes(make_strategy("one-device"))


@pytest.mark.parametrize("replicas", [1, 2])
def test_predict_drops_what_filled_up(replicas: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp()
    expected = model.predict(X, verbose=0)
    monkeypatch.setattr(inference, "needs_static_shapes", lambda strategy: True)
    found = tfmb.predict(model, X, batch_size=4, devices=replicas)
    # Another batch size sums in another order: values near 1e-3 were seen to differ by 1.2e-7 without AVX-512.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    data = tf.data.Dataset.from_tensor_slices((X, Y))
    whole = tfmb.predict(model, data.batch(3, drop_remainder=True), devices=replicas)
    np.testing.assert_allclose(whole, expected[:9], rtol=1e-6, atol=1e-6)
    with pytest.raises(ConfigError, match="batches of a known size"):
        tfmb.predict(model, data.batch(3), devices=replicas)


def test_evaluate_leaves_out_what_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp()
    model.compile("sgd", logits(), metrics=["accuracy"])
    expected = model.evaluate(X, Y, verbose=0)
    monkeypatch.setattr(scoring, "needs_static_shapes", lambda strategy: True)
    for replicas in (1, 2):
        found = tfmb.evaluate(model, X, Y, batch_size=4, verbose=0, devices=replicas)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_filling_up_repeats_the_last_row() -> None:
    batches = tf.data.Dataset.from_tensor_slices((np.arange(5), np.arange(5) * 2)).batch(3)
    found = [[np.asarray(part).tolist() for part in batch] for batch in fill_up(batches, 3)]
    assert found == [[[0, 1, 2], [0, 2, 4], 3], [[3, 4, 4], [6, 8, 8], 2]]
    assert [tuple(spec.shape) for spec in fill_up(batches, 3).element_spec] == [(3,), (3,), ()]


def test_pipeline_pads_only_where_the_batch_does_not_divide_the_examples() -> None:
    for rows, parts in ((8, 3), (11, 4)):
        source = Source.from_arrays(X[:rows], Y[:rows], name="x")
        order = Order(num_examples=rows, batch_size=4, seed=0)
        spec = batched(source, order, static=True).element_spec
        assert len(spec) == parts
        assert spec[0].shape == (4, 4)
