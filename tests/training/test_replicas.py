"""One, two and four replicas give one answer, and every replica holds the same bits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from replica_copies import copies
from steps import placed_on, spec_of

import tfmb
from tfmb import models
from tfmb.backend import keras, tf
from tfmb.data.batches import Order
from tfmb.data.source import Source
from tfmb.distribution import make_strategy
from tfmb.optimizers import SGD, Adam, Optimizer
from tfmb.training import trainer
from tfmb.training.input.array_pipeline import ArrayPipeline
from tfmb.training.loop.hooks import Hooks
from tfmb.training.loop.plan import TrainingPlan
from tfmb.training.loop.reports import EpochReport, UpdatesReport

layers = keras.layers
# Batches of 13 of 53 rows: four whole ones, which no number of replicas divides, and one of a single row.
ROWS, BATCH, EPOCHS = 53, 13, 10
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def images(side: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(ROWS, side, side, 1)), random.integers(0, 10, ROWS)


def trained(build: Callable[[], Any], x: Any, y: Any, replicas: int, optimizer: Any, **arguments: Any) -> Any:
    """The History of ten epochs of five updates."""
    arguments = {"batch_size": BATCH, "epochs": EPOCHS, "seed": 3, "verbose": 0, "loss": LOGITS, **arguments}
    return tfmb.fit(build, x, y, optimizer=optimizer, devices=replicas, **arguments)


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    for a, b in zip(found.model.get_weights(), expected.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    assert list(found.history) == list(expected.history)
    for key, values in expected.history.items():
        np.testing.assert_allclose(found.history[key], values, rtol=tolerance, atol=tolerance, err_msg=key)


def assert_copies_equal(model: Any, optimizer: Optimizer, replicas: int) -> None:
    variables = [v.value for v in model.variables] + optimizer.variables
    assert len(variables) > len(model.variables)
    for variable in variables:
        first, *others = copies(variable)
        assert len(others) == replicas - 1
        for other in others:
            np.testing.assert_array_equal(other, first, err_msg=variable.name)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [pytest.param("cnn", marks=pytest.mark.compile), "mlp"])
def test_fifty_updates_in_float64(name: str) -> None:
    x, y = images(12 if name == "cnn" else 8)

    def build() -> Any:
        return models.MODELS[name](x.shape[1:], 10, seed=1, dropout=0.0)

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)  # made here, in float64
    expected = trained(build, x, y, 1, Adam(), loss=loss)
    assert expected.model.weights[0].dtype == "float64"
    for replicas in (2, 4):
        optimizer = Adam()
        found = trained(build, x, y, replicas, optimizer, loss=loss)
        assert_close(found, expected, 1e-11)
        assert_copies_equal(found.model, optimizer, replicas)
        assert copies(optimizer.iterations)[0] == 50


@pytest.mark.compile
@pytest.mark.parametrize("make", [Adam, lambda: SGD(0.05, momentum=0.9)], ids=["Adam", "momentum"])
def test_fifty_updates_of_the_mlp_in_float32(make: Callable[[], Optimizer]) -> None:
    x, y = images(8)

    def build() -> Any:
        return models.mlp((8, 8, 1), 10, seed=1)

    optimizer = make()
    found = trained(build, x, y, 2, optimizer, metrics=["accuracy"])
    assert_close(found, trained(build, x, y, 1, make(), metrics=["accuracy"]), 1e-6)
    assert_copies_equal(found.model, optimizer, 2)


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
def test_regularizer_weights_and_metrics_count_once() -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(size=(ROWS, 4)), random.integers(0, 3, ROWS)

    def build() -> Any:
        keras.utils.set_random_seed(1)
        inputs = keras.Input((4,))
        hidden = layers.Dense(6, "tanh", kernel_regularizer=keras.regularizers.L2(0.1))(inputs)
        heads = [layers.Dense(3, "softmax", name="kind")(hidden), layers.Dense(2, name="size")(hidden)]
        return keras.Model(inputs, heads)

    auc = [keras.metrics.AUC(name="auc", multi_label=True), "mae"]
    arguments: dict[str, Any] = {
        "loss": ["sparse_categorical_crossentropy", keras.losses.MeanSquaredError(reduction="sum")],
        "metrics": [["accuracy"], auc],
        "sample_weight": np.linspace(0, 2, ROWS),
        "validation_split": 0.2,
        "epochs": 3,
    }
    targets = [y, np.eye(2)[y % 2]]
    one = trained(build, x, targets, 1, SGD(0.01), **arguments)
    two = trained(build, x, targets, 2, SGD(0.01), **arguments)
    assert_close(two, one, 1e-11)
    assert {"kind_loss", "size_auc", "val_size_mae", "val_kind_accuracy"} < set(one.history)


@pytest.mark.compile
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_batches_of_one_example(reduction: str) -> None:
    # One replica's part is empty. A single part is divided before its gradient is taken, which may move a last bit.
    x, y = np.random.default_rng(2).normal(size=(5, 4)), np.arange(5) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)

    def build() -> Any:
        return models.mlp((4,), 3, seed=1)

    arguments = {"batch_size": 1, "epochs": 2, "loss": loss, "sample_weight": np.arange(1.0, 6.0)}
    one, two = (trained(build, x, y, replicas, SGD(0.05), **arguments) for replicas in (1, 2))
    assert_close(two, one, 1e-6)


def scalar(y_true: Any, y_pred: Any) -> Any:
    """A loss that is a mean already."""
    return tf.reduce_mean(tf.square(y_true - y_pred))


def regression(rows: int) -> tuple[Callable[[], Any], np.ndarray, np.ndarray]:
    x = np.random.default_rng(3).normal(size=(rows, 4))
    return lambda: models.mlp((4,), 1, seed=1), x, x[:, :1] ** 2


@pytest.mark.compile
def test_loss_that_returns_its_mean() -> None:
    data = regression(25)
    one, two = (trained(*data, replicas, SGD(0.05), loss=scalar, epochs=2) for replicas in (1, 2))
    assert_close(two, one, 1e-6)


@pytest.mark.compile
def test_loss_that_returns_its_mean_of_a_batch_of_one() -> None:
    data = regression(14)
    one, two = (trained(*data, replicas, SGD(0.05), loss=scalar, epochs=2) for replicas in (1, 2))
    assert_close(two, one, 1e-6)


@pytest.mark.compile
@pytest.mark.parametrize("rows", [25, 14], ids=["ragged", "one in a batch"])
def test_metric_that_returns_its_mean(rows: int) -> None:
    data = regression(rows)
    arguments: dict[str, Any] = {"loss": "mse", "metrics": [scalar], "epochs": 2}
    one, two = (trained(*data, replicas, SGD(0.05), **arguments) for replicas in (1, 2))
    assert_close(two, one, 1e-6)


def by_name(y_true: Any, y_pred: Any) -> Any:
    """A loss that is the target, whatever the model says."""
    return y_true[:, 0] + 0.0 * y_pred[:, 0]


class Losses:
    """An action that keeps each batch's loss, times its number of examples."""

    def __init__(self) -> None:
        self.sums: list[int] = []

    def updates_made(self, report: UpdatesReport) -> None:
        whole, rest = divmod(report.examples, len(report.losses))
        assert rest == 0
        self.sums += [round(loss * whole) for loss in report.losses]

    def epoch_ended(self, report: EpochReport) -> None:
        pass


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
def test_order_of_examples_is_the_orders_own(strategy: Any) -> None:
    # Row i has the target 2^i, so the sum of a batch names its rows.
    rows, size = 21, 4
    source = Source.from_arrays(np.ones((rows, 1)), 2.0 ** np.arange(rows)[:, np.newaxis])
    order = Order(num_examples=rows, batch_size=size, seed=9)
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    recorded = Losses()
    plan, watching = TrainingPlan(epochs=3, log_every=1), Hooks(loggers=[recorded])
    placed, spec = placed_on(model, SGD(0.0), strategy), spec_of(strategy, loss=by_name)
    trainer.train(placed, spec, ArrayPipeline(source, order), plan, watching)
    expected = [int(np.sum(2 ** order.indices(epoch, step).numpy())) for epoch in range(3) for step in range(6)]
    assert recorded.sums == expected
    assert len(set(expected)) > 6


@pytest.mark.compile
def test_metrics_with_many_states() -> None:
    # The second batch has one row, so one replica scores nothing.
    x, y = np.random.default_rng(4).normal(size=(14, 4)), np.eye(3)[np.arange(14) % 3]

    def metrics() -> list[Any]:
        f1, r2 = keras.metrics.F1Score(name="f1"), keras.metrics.R2Score(name="r2")
        return [f1, r2, keras.metrics.AUC(name="auc"), keras.metrics.OneHotMeanIoU(3, name="iou")]

    def build() -> Any:
        return keras.Sequential([models.mlp((4,), 3, seed=1), layers.Softmax()])

    arguments = {"loss": "categorical_crossentropy", "epochs": 2}
    one, two = (trained(build, x, y, replicas, SGD(0.1), metrics=metrics(), **arguments) for replicas in (1, 2))
    assert_close(two, one, 1e-6)
    assert np.shape(two.history["f1"]) == (2, 3)


def test_one_mirrored_replica_is_one_device() -> None:
    data = regression(25)
    one = trained(*data, 1, SGD(0.05), loss="mse", epochs=2)
    mirrored = trained(*data, 1, SGD(0.05), loss="mse", epochs=2, strategy=make_strategy("mirrored", 1))
    assert_close(mirrored, one, 0.0)
