"""The runs of the invariance matrix: whatever the replicas and the cut, they end like one replica's whole batches."""

import functools
import itertools
from typing import Any

import numpy as np

import tfmb
from tfmb.backend import keras
from tfmb.layers import Dropout
from tfmb.optimizers import SGD, Adam

layers = keras.layers
UPDATES = 20
TOLERANCE = 1e-11
# Each dimension's values by name; a row of the matrix is one name of each, in this order.
REPLICAS: dict[str, Any] = {"1 replica": 1, "2 replicas": 2, "4 replicas": 4}
CUTS: dict[str, Any] = {"whole": None, "micro": 2}
CLIPS: dict[str, Any] = {"unclipped": {}, "global norm": {"global_clipnorm": 0.5}, "value": {"clipvalue": 0.05}}
# (rows, batch size): twenty updates in whole epochs. Batches of 3 and 1 leave a replica without rows.
SIZES: dict[str, Any] = {"even": (40, 8), "ragged": (37, 8), "empty": (10, 3)}
RULES: dict[str, Any] = {
    "sgd": lambda **clip: SGD(0.05, **clip),
    "momentum": lambda **clip: SGD(0.05, momentum=0.9, **clip),
    "adam": lambda **clip: Adam(0.01, **clip),
}
DIMENSIONS = (REPLICAS, CUTS, CLIPS, SIZES, RULES)
Row = tuple[str, ...]


def product() -> list[Row]:
    """The whole matrix."""
    return list(itertools.product(*DIMENSIONS))


def pairs_of(row: Row) -> set[tuple[Any, ...]]:
    """The pairs of values of two dimensions in a row."""
    return set(itertools.combinations(enumerate(row), 2))


def all_pairs() -> set[tuple[Any, ...]]:
    """Every pair of values of two dimensions."""
    return set().union(*map(pairs_of, product()))


def covering() -> list[Row]:
    """Rows in which every pair of values occurs: each time the row with the most new pairs, the first of several."""
    left, rows = all_pairs(), []
    while left:
        best = max(product(), key=lambda row: len(pairs_of(row) & left))
        rows.append(best)
        left -= pairs_of(best)
    return rows


def _mlp(rows: int) -> tuple[Any, Any, Any, Any]:
    """(model, x, y, sample weights): dropout, a regulariser and uneven weights."""
    random = np.random.default_rng(1)
    inputs = keras.Input((4,))
    hidden = layers.Dense(6, "tanh", kernel_regularizer=keras.regularizers.L2(0.02))(inputs)
    model = keras.Model(inputs, layers.Dense(3)(Dropout(0.3)(hidden)))
    return model, random.normal(size=(rows, 4)), random.integers(0, 3, rows), random.uniform(0.2, 2.0, rows)


def _sequences(rows: int) -> tuple[Any, Any, Any, Any]:
    """The same of padded sequences: a class for every token that is none of the padding, and a number for each row."""
    random = np.random.default_rng(2)
    length = 6
    x = random.integers(1, 8, (rows, length))
    x[np.arange(length) >= random.integers(1, length + 1, rows)[:, np.newaxis]] = 0
    inputs = keras.Input((length,), dtype="int32")
    states = layers.LSTM(5, return_sequences=True)(layers.Embedding(8, 4, mask_zero=True)(inputs))
    number = layers.Dense(1, name="number")(layers.GlobalAveragePooling1D()(states))
    model = keras.Model(inputs, [layers.LSTM(3, return_sequences=True, name="tags")(states), number])
    return model, x.astype("int32"), [x % 3, random.normal(size=(rows, 1))], None


MODELS = {"mlp": _mlp, "sequences": _sequences}


def run(name: str, row: Row) -> tuple[list[np.ndarray], list[float]]:
    """(weights, losses) of twenty updates of a model, in the precision that is set."""
    replicas, cut, clip, size, rule = (values[value] for values, value in zip(DIMENSIONS, row, strict=True))
    keras.utils.set_random_seed(5)
    model, x, y, weights = MODELS[name](size[0])
    loss: Any = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    epochs = UPDATES // -(-size[0] // size[1])
    history = tfmb.fit(
        model,
        x,
        y,
        batch_size=size[1],
        epochs=epochs,
        sample_weight=weights,
        optimizer=rule(**clip),
        loss=loss if name == "mlp" else [loss, "mse"],
        replicas=replicas,
        micro_batch_size=cut,
        seed=3,
        verbose=0,
    )
    return model.get_weights(), history.history["loss"]


@functools.cache
def reference(name: str, clip: str, size: str, rule: str) -> tuple[list[np.ndarray], list[float]]:
    """One replica's whole batches."""
    return run(name, ("1 replica", "whole", clip, size, rule))


def check(name: str, row: Row) -> None:
    """Runs a row of the matrix and compares it with its reference."""
    assert keras.config.floatx() == "float64"
    expected_weights, expected_losses = reference(name, *row[2:])
    weights, losses = run(name, row)
    for found, expected in zip(weights, expected_weights, strict=True):
        assert found.dtype == "float64"
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE)
