"""The runs of the invariance matrix: whatever the replicas, cut and XLA, they end like one replica's whole batches."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from replica_copies import copies

import tfmb
from tfmb.backend import keras
from tfmb.distribution import make_strategy
from tfmb.layers import Dropout
from tfmb.optimizers import SGD, Adam

layers = keras.layers
TOLERANCE = {"float64": 1e-11, "float32": 1e-6}
FIRST_TOLERANCE = 4e-6  # of a CNN's first update by Adam in float32, see `check_updates`
# Each dimension's values by name; a row of the matrix is one name of each, in this order.
REPLICAS: dict[str, Any] = {"1 replica": 1, "2 replicas": 2, "4 replicas": 4}
CUTS: dict[str, Any] = {"whole": None, "micro": 8}  # micro-batches an update: each of four replicas has two
CLIPS: dict[str, Any] = {"unclipped": {}, "global norm": {"global_clipnorm": 0.5}, "value": {"clipvalue": 0.02}}
RULES: dict[str, Any] = {
    "sgd": lambda **clip: SGD(0.05, **clip),
    "momentum": lambda **clip: SGD(0.02, momentum=0.9, **clip),
    "adam": lambda **clip: Adam(0.001, **clip),
}
XLA: dict[str, Any] = {"graph": False, "xla": True}
# (rows, batch size): five updates an epoch. Seven rows leave one of eight micro-batches empty; the last batch of
# "empty" is one row, which all replicas but one go without.
SIZES: dict[str, Any] = {"even": (40, 8), "ragged": (39, 8), "empty": (29, 7)}
# The same for float32 updates of the CNN. Micro-batches have two rows at least: on a CPU TensorFlow convolves a single
# image by another kernel than several, and where the last bit decides a tie of a ReLU or a max-pool, updates part.
LARGER_SIZES: dict[str, Any] = {"even": (120, 24), "ragged": (117, 24), "empty": (85, 21)}
DIMENSIONS = (REPLICAS, CUTS, CLIPS, RULES, XLA, SIZES)
UPDATES, EPOCHS, MOST_ROWS = 50, 10, 120
Row = tuple[str, ...]
# The trained weights, then the count of updates and the slots.
State = list[np.ndarray]


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


@dataclass(frozen=True, kw_only=True)
class AdviceTask:
    """What is learned: `MOST_ROWS` rows, and a function that builds the model.

    The hidden layers of all but the CNN are smooth: where a ReLU's input is next to 0, rounding alone decides whether
    float32 runs part.
    """

    build: Callable[[], Any]
    x: Any
    y: Any
    sample_weight: Any = None
    augment: Any = None
    loss: Any


def _classes() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _mlp() -> AdviceTask:
    """Dropout, a regulariser and uneven weights."""

    def build() -> Any:
        inputs = keras.Input((4,))
        hidden = layers.Dense(6, "tanh", kernel_regularizer=keras.regularizers.L2(0.02))(inputs)
        return keras.Model(inputs, layers.Dense(3)(Dropout(0.3)(hidden)))

    random = np.random.default_rng(1)
    x, y = random.normal(size=(MOST_ROWS, 4)), random.integers(0, 3, MOST_ROWS)
    return AdviceTask(build=build, x=x, y=y, sample_weight=random.uniform(0.2, 2.0, MOST_ROWS), loss=_classes())


def _table() -> AdviceTask:
    """Columns by name, dropout and uneven weights."""

    def build() -> Any:
        inputs = {"age": keras.Input((1,), name="age"), "town": keras.Input((), dtype="int32", name="town")}
        columns = layers.Concatenate()([inputs["age"], layers.Embedding(5, 3)(inputs["town"])])
        return keras.Model(inputs, layers.Dense(2)(Dropout(0.2)(layers.Dense(8, "tanh")(columns))))

    random = np.random.default_rng(3)
    x = {"age": random.normal(size=(MOST_ROWS, 1)), "town": random.integers(0, 5, MOST_ROWS).astype("int32")}
    y = (x["age"][:, 0] + x["town"] > 2).astype("int64")
    return AdviceTask(build=build, x=x, y=y, sample_weight=random.uniform(0.2, 2.0, MOST_ROWS), loss=_classes())


def _cnn() -> AdviceTask:
    """The CNN of the MNIST recipe with its dropout, on shifted and turned digits."""
    splits = tfmb.data.load("digits")

    def build() -> Any:
        bare = tfmb.models.cnn((28, 28, 1), 10, seed=4)
        return tfmb.models.with_preprocessing(bare, (28, 28, 1), splits.normalization)

    x, y = splits.train.examples[:MOST_ROWS], splits.train.labels[:MOST_ROWS]
    return AdviceTask(build=build, x=x, y=y, augment=tfmb.data.Augmentation(shift=2, rotate=10), loss=_classes())


def _sequences(hidden: Callable[[], Any] = lambda: layers.Dense(5, "tanh")) -> AdviceTask:
    """Padded sequences: a class for every token that is none of the padding, and a number for each row."""
    length = 6

    def build() -> Any:
        inputs = keras.Input((length,), dtype="int32")
        states = hidden()(layers.Embedding(8, 4, mask_zero=True)(inputs))
        number = layers.Dense(1, name="number")(layers.GlobalAveragePooling1D()(states))
        return keras.Model(inputs, [layers.Dense(3, name="tags")(states), number])

    random = np.random.default_rng(2)
    x = random.integers(1, 8, (MOST_ROWS, length)).astype("int32")
    x[np.arange(length) >= random.integers(1, length + 1, MOST_ROWS)[:, np.newaxis]] = 0
    return AdviceTask(build=build, x=x, y=[x % 3, random.normal(size=(MOST_ROWS, 1))], loss=[_classes(), "mse"])


def _lstm() -> AdviceTask:
    """The same through a recurrent layer."""
    return _sequences(lambda: layers.LSTM(5, return_sequences=True))


MODELS: dict[str, Callable[[], AdviceTask]] = {
    "mlp": _mlp,
    "table": _table,
    "cnn": _cnn,
    "sequences": _sequences,
    "lstm": _lstm,
}


class Trainer:
    """A model and its optimizer on their devices. A second training uses what the first one traced and compiled.

    Args:
        problem: what is learned, in the precision that is set.
        row: of the matrix; its size is left to `train`.
    """

    def __init__(self, problem: AdviceTask, row: Row) -> None:
        replicas, partition, clip, rule, xla = row[:5]
        keras.utils.set_random_seed(5)
        self._problem = problem
        self._strategy = make_strategy("auto", REPLICAS[replicas])
        self._optimizer = RULES[rule](**CLIPS[clip])
        self._micro_batches, self._jit_compile = CUTS[partition], XLA[xla]
        with self._strategy.scope():
            self.model = problem.build()
            self._optimizer.build(self.model.trainable_variables)
        self._start = self.state

    @property
    def _variables(self) -> list[Any]:
        return [*(variable.value for variable in self.model.trainable_variables), *self._optimizer.variables]

    @property
    def weights(self) -> State:
        """The trained weights; the copies of these and of the slots have the same bits on every replica."""
        return self.state[: len(self.model.trainable_variables)]

    @property
    def state(self) -> State:
        """What all replicas hold, to the bit."""
        found = []
        for variable in self._variables:
            first, *others = copies(variable)
            assert all(other.tobytes() == first.tobytes() for other in others), variable.name
            found.append(first)
        return found

    @state.setter
    def state(self, values: State) -> None:
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)

    def train(self, size: tuple[int, int], callback: Any = None, epochs: int = EPOCHS) -> tuple[State, list[float]]:
        """(weights, losses of the epochs) of five updates an epoch from the start, of so many rows in such batches."""
        rows, batch_size = size
        problem = self._problem
        self.state = self._start
        x, y = (keras.tree.map_structure(lambda array: array[:rows], part) for part in (problem.x, problem.y))
        history = tfmb.fit(
            self.model,
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            sample_weight=None if problem.sample_weight is None else problem.sample_weight[:rows],
            callbacks=[] if callback is None else [callback],
            optimizer=self._optimizer,
            loss=problem.loss,
            strategy=self._strategy,
            augment=problem.augment,
            seed=3,
            verbose=0,
            micro_batch_size=self._micro_batches and math.ceil(batch_size / self._micro_batches),
            jit_compile=self._jit_compile,
        )
        assert self._optimizer.iterations.numpy() == 5 * epochs
        return self.weights, history.history["loss"]


class _Updates(keras.callbacks.Callback):
    """Keeps the states that updates start from and the weights they lead to.

    Args:
        trainer: makes the updates.
        states: those to put it into before each update; none to let it go its way.
    """

    def __init__(self, trainer: Trainer, states: Sequence[State] = ()) -> None:
        super().__init__()
        self._trainer, self._given = trainer, states
        self.states: list[State] = []
        self.weights: list[State] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._given:
            self._trainer.state = self._given[len(self.states)]
        self.states.append(self._trainer.state)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.weights.append(self._trainer.weights)


@functools.cache
def _reference(precision: str, name: str, clip: str, rule: str, size: str) -> tuple[State, list[float]]:
    return Trainer(MODELS[name](), ("1 replica", "whole", clip, rule, "graph")).train(SIZES[size])


def reference(name: str, row: Row) -> tuple[State, list[float]]:
    """(weights, losses of the epochs) of one replica's whole batches, without XLA."""
    return _reference(keras.config.floatx(), name, row[2], row[3], row[5])


@functools.lru_cache(maxsize=1)
def _reference_updates(precision: str, name: str, row: Row) -> _Updates:
    trainer = Trainer(MODELS[name](), row)
    updates = _Updates(trainer)
    trainer.train(LARGER_SIZES[row[5]], updates, EPOCHS + 1)
    return updates


def check(name: str, row: Row, sizes: Sequence[str] | None = None) -> None:
    """Asserts that a row ends like its reference; with `sizes` all rows that differ from it in their size."""
    trainer = Trainer(MODELS[name](), row)
    for size in sizes or [row[5]]:
        expected, expected_losses = reference(name, (*row[:5], size))
        found, losses = trainer.train(SIZES[size])
        _check_weights(found, expected)
        np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE[keras.config.floatx()])


def check_updates(name: str, row: Row) -> None:
    """Asserts the same of one update from each of the states that one replica's whole batches go through.

    XLA's and TensorFlow's kernels round differently, which may decide a tie: both sides use the same. The start has a
    tolerance of its own: where Adam has no slots yet, a weight moves by the rate * g / (|g| + epsilon / sqrt(1 - b2)),
    which for a small g is 316 times the gradient's own rounding.
    """
    expected = _reference_updates(keras.config.floatx(), name, ("1 replica", "whole", *row[2:]))
    trainer = Trainer(MODELS[name](), row)
    updates = _Updates(trainer, expected.states)
    trainer.train(LARGER_SIZES[row[5]], updates, EPOCHS + 1)
    assert len(updates.weights) > UPDATES
    _check_weights(updates.weights[0], expected.weights[0], FIRST_TOLERANCE if row[3] == "adam" else None)
    for weights in zip(updates.weights[1:], expected.weights[1:], strict=True):
        _check_weights(*weights)


def _check_weights(found: State, expected: State, tolerance: float | None = None) -> None:
    precision = keras.config.floatx()
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype == precision
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance or TOLERANCE[precision])
