"""`tfmb.fit` against `keras.Model.fit`: the same History and weights from the same start, in the data's own order."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf

layers = keras.layers
_random = np.random.default_rng(0)
# 37 rows: batches of 8 leave a last one of 5; the 28 left of a quarter held out leave one of 4 (of 3 with 27).
X = _random.normal(size=(37, 4)).astype("float32")
CLASSES = _random.integers(0, 3, 37)
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]
BINARY = (CLASSES > 0).astype("float32")[:, np.newaxis]
REAL = (X @ [[1.0], [-2.0], [0.5], [3.0]] + 1).astype("float32")
WEIGHTS = np.linspace(0.0, 2.0, 37)


def dense(units: int, activation: str | None, loss: Any, optimizer: Any = None, **compiled: Any) -> Any:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, "tanh"), layers.Dense(units, activation)])
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, **compiled)
    return model


def classifier(**compiled: Any) -> Any:
    return dense(3, "softmax", "sparse_categorical_crossentropy", **compiled)


def tabular(optimizer: Any, **compiled: Any) -> Any:
    """Two inputs by name, one output of logits."""
    left, right = keras.Input((3,), name="left"), keras.Input((1,), name="right")
    hidden = layers.Dense(6, "relu")(layers.Concatenate()([left, layers.Dense(2)(right)]))
    model = keras.Model({"left": left, "right": right}, layers.Dense(3, name="logits")(hidden))
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **compiled)
    return model


def two_headed(**compiled: Any) -> Any:
    inputs = keras.Input((4,))
    hidden = layers.Dense(6, "tanh")(inputs)
    heads = [layers.Dense(3, "softmax", name="kind")(hidden), layers.Dense(1, name="size")(hidden)]
    model = keras.Model(inputs, heads)
    model.compile(keras.optimizers.SGD(0.05), **compiled)
    return model


def assert_parity(build: Callable[[], Any], *data: Any, **arguments: Any) -> dict[str, list[Any]]:
    """Trains two models from the same weights, one with Keras and one with ours; returns our history."""
    theirs, ours = build(), build()
    ours.set_weights(theirs.get_weights())
    arguments = {"verbose": 0, "shuffle": False, **arguments}
    expected, found = theirs.fit(*data, **arguments), tfmb.fit(ours, *data, **arguments)
    assert list(found.history) == list(expected.history)
    assert found.epoch == expected.epoch
    for key, values in expected.history.items():
        np.testing.assert_allclose(found.history[key], values, rtol=1e-5, atol=1e-5, err_msg=key)
    for ours_now, theirs_now in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(ours_now, theirs_now, rtol=1e-5, atol=1e-5)
    assert found.model is ours
    return found.history


def test_signature_begins_as_keras() -> None:
    theirs = list(inspect.signature(keras.Model.fit).parameters.values())[1:]
    ours = list(inspect.signature(tfmb.fit).parameters.values())
    assert ours[0].name == "model"
    begin = ours[1 : len(theirs) + 1]
    assert [(p.name, p.default, p.kind) for p in begin] == [(p.name, p.default, p.kind) for p in theirs]
    assert {p.kind for p in ours[len(theirs) + 1 :]} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.compile
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.Adam(0.01),
        lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.2, 3, 0.5), momentum=0.5),
    ],
    ids=["SGD", "Adam", "schedule"],
)
def test_two_inputs_with_class_weights(optimizer: Callable[[], Any]) -> None:
    history = assert_parity(
        lambda: tabular(optimizer(), metrics=["accuracy"]),
        {"left": X[:, :3], "right": X[:, 3:]},
        CLASSES,
        batch_size=8,
        epochs=3,
        validation_split=0.25,
        class_weight={0: 1.0, 1: 3.0},
    )
    assert list(history) == ["accuracy", "loss", "val_accuracy", "val_loss"]


@pytest.mark.compile
def test_sample_weights_and_weighted_metrics() -> None:
    history = assert_parity(
        lambda: tabular(keras.optimizers.Adam(0.01), metrics=["accuracy"], weighted_metrics=["accuracy", "acc"]),
        {"left": X[:, :3], "right": X[:, 3:]},
        CLASSES,
        batch_size=8,
        epochs=2,
        validation_split=0.25,
        sample_weight=WEIGHTS,
    )
    assert "val_weighted_accuracy" in history


@pytest.mark.compile
def test_two_outputs() -> None:
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    metrics = {"kind": ["accuracy"], "size": ["mae", "mse"]}
    history = assert_parity(
        lambda: two_headed(loss=losses, loss_weights={"kind": 2.0, "size": 0.5}, metrics=metrics),
        X[:32],  # Keras weighs the batches of an output's loss equally, so a ragged one would count too much there
        [CLASSES[:32], REAL[:32]],
        batch_size=8,
        epochs=2,
        validation_data=(X[:16], [CLASSES[:16], REAL[:16]]),
        validation_batch_size=8,
    )
    assert {"kind_loss", "size_loss", "kind_accuracy", "val_size_mae"} < set(history)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # Keras's own, of the output without a loss
def test_two_outputs_with_one_loss() -> None:
    history = assert_parity(
        lambda: two_headed(loss=[None, "mse"], metrics=[["accuracy"], None]), X, [CLASSES, REAL], batch_size=8
    )
    assert list(history) == ["kind_accuracy", "loss"]


@pytest.mark.compile
def test_losses_of_several_outputs_over_ragged_batches() -> None:
    """Keras weighs the smaller last batch of an output's own loss like the others: so do whole batches and cut ones."""
    given: dict[str, Any] = {"batch_size": 8, "epochs": 2, "sample_weight": WEIGHTS, "loss_weights": [2.0, 0.5]}
    losses = {"loss": ["sparse_categorical_crossentropy", "mse"], "loss_weights": given.pop("loss_weights")}
    whole = assert_parity(lambda: two_headed(**losses), X, [CLASSES, REAL], **given)
    histories = []
    for parts in ("auto", 2):
        keras.utils.set_random_seed(1)
        history = tfmb.fit(
            two_headed(**losses), X, [CLASSES, REAL], verbose=0, shuffle=False, virtual_replicas=parts, **given
        )
        histories.append(history.history)
    assert list(histories[1]) == list(whole)
    for key, values in histories[0].items():
        assert histories[1][key] == pytest.approx(values, rel=1e-5)


@pytest.mark.compile
def test_first_and_later_epochs_and_validation_arguments() -> None:
    for frequency in (2, [1, 4]):
        history = assert_parity(
            lambda: classifier(metrics=["accuracy"]),
            X,
            CLASSES,
            batch_size=8,
            epochs=4,
            initial_epoch=1,
            validation_data=(X[::-1], CLASSES[::-1], WEIGHTS),
            validation_freq=frequency,
            validation_steps=2,
            validation_batch_size=5,
        )
        assert len(history["loss"]) == 3
        assert len(history["val_loss"]) == (2 if frequency == 2 else 1)


def test_initial_epoch_past_the_end_trains_nothing() -> None:
    assert assert_parity(classifier, X, CLASSES, epochs=2, initial_epoch=2) == {}


@pytest.mark.filterwarnings("ignore:.*ran out")
@pytest.mark.parametrize("steps", [3, 5, 7])
def test_steps_per_epoch_of_arrays(steps: int) -> None:
    assert_parity(classifier, X, CLASSES, batch_size=8, epochs=4, steps_per_epoch=steps)


@pytest.mark.compile
def test_regression() -> None:
    metrics = ["mae", "mse", keras.metrics.RootMeanSquaredError(name="rmse"), "MeanAbsolutePercentageError"]
    assert_parity(lambda: dense(1, None, "mse", metrics=metrics), X, REAL[:, 0], batch_size=8, epochs=2)
    assert_parity(lambda: dense(1, None, keras.losses.Huber(), metrics=["mae"]), X, REAL, epochs=2)


@pytest.mark.compile
def test_one_hot() -> None:
    def build() -> Any:
        metrics = [
            "accuracy",
            keras.metrics.AUC(name="auc"),
            keras.metrics.F1Score(name="f1"),  # several values
            keras.metrics.TopKCategoricalAccuracy(2, name="top"),
            keras.metrics.OneHotMeanIoU(3, name="iou"),
            keras.metrics.AUC(multi_label=True, name="auc"),  # the same name again
        ]
        return dense(3, "softmax", keras.losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=metrics)

    assert "auc_1" in assert_parity(build, X, ONE_HOT, batch_size=8, epochs=2)


@pytest.mark.compile
def test_binary() -> None:
    def build() -> Any:
        metrics = ["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.Precision(name="p"), "Recall"]
        optimizer = keras.optimizers.Adam(0.01)
        return dense(1, "sigmoid", "binary_crossentropy", optimizer, metrics=metrics, weighted_metrics=["accuracy"])

    assert_parity(build, X, BINARY, batch_size=8, epochs=2, validation_split=0.2, class_weight={0: 3.0})


def test_batch_norm_regularizers_and_added_losses() -> None:
    class Adds(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            self.add_loss(0.1 * tf.reduce_mean(tf.square(inputs)))
            return inputs

    def build() -> Any:
        l2 = keras.regularizers.L2(0.1)
        hidden = layers.Dense(6, kernel_regularizer=l2, activity_regularizer=keras.regularizers.L1(0.01))
        head = layers.Dense(3, "softmax", bias_regularizer=l2)
        model = keras.Sequential([keras.Input((4,)), hidden, layers.BatchNormalization(), Adds(), head])
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    assert_parity(build, X, CLASSES, batch_size=8, epochs=3, validation_split=0.25, sample_weight=WEIGHTS)


def test_masked_sequences_with_weights_by_step() -> None:
    tokens = np.concatenate([np.arange(1, 7) * (np.arange(6) < length) for length in range(7)] * 5).reshape(-1, 6)
    labels = (tokens + np.arange(len(tokens))[:, np.newaxis]) % 2

    def build() -> Any:
        inner = [layers.Embedding(7, 4, mask_zero=True), layers.SimpleRNN(3, return_sequences=True)]
        model = keras.Sequential([keras.Input((6,)), *inner, layers.Dense(2, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"])
        return model

    weights = np.linspace(0.5, 2, tokens.size).reshape(tokens.shape)
    assert_parity(build, tokens, labels, batch_size=8, epochs=2, sample_weight=weights)


@pytest.mark.parametrize("name", ["mean_error", "myAUCScore"])
def test_metrics_named_as_keras_names_functions(name: str) -> None:
    def metric(y_true: Any, y_pred: Any) -> Any:
        return tf.reduce_mean(tf.abs(y_true - y_pred), -1)

    metric.__name__ = name
    assert_parity(lambda: dense(3, None, "mse", metrics=[metric, "mse"]), X, ONE_HOT, batch_size=8)


def test_lambda_as_loss() -> None:
    assert_parity(lambda: dense(3, None, lambda y, p: tf.reduce_mean(tf.square(y - p), -1)), X, ONE_HOT, batch_size=8)


def test_lambda_as_metric() -> None:
    metric = [lambda y, p: tf.reduce_mean(tf.abs(y - p), -1)]
    assert_parity(lambda: dense(3, None, "mse", metrics=metric), X, ONE_HOT, batch_size=8)


def test_batch_larger_than_the_data() -> None:
    assert_parity(classifier, X, CLASSES, batch_size=64, epochs=2)
