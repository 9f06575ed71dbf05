"""Every kind of arrays that `fit` takes trains as in `fit`, is scored as in `evaluate` and predicted as in `predict`.

What `fit` refuses is refused in one line.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse
from same_as_fit import Fit, assert_same
from stopped_runs import StopAfter

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError, PreemptedError, TfmbError

layers = keras.layers
_random = np.random.default_rng(0)
X, Y = _random.normal(size=(18, 4)), _random.normal(size=(18, 1))
MOSTLY_ZERO = np.where(_random.uniform(size=(18, 4)) < 0.6, 0.0, X)
WORDS = np.array([["a b", "b c", "a", "c c a", "", "b"][i % 6] for i in range(18)], object)
ROWS = tf.RaggedTensor.from_row_lengths(_random.integers(0, 9, 45), [3, 1, 2, 4, 0, 5] * 3)
WEIGHTS = _random.uniform(0.5, 2.0, 18)


class Pair(NamedTuple):
    """Inputs by name."""

    left: Any
    right: Any


class Taking(keras.Model):
    """Takes inputs of a structure of its own."""

    def __init__(self, take: Callable[[Any], Any], units: int = 1) -> None:
        super().__init__()
        self.take, self.dense = take, layers.Dense(units)

    def call(self, inputs: Any) -> Any:
        return self.dense(self.take(inputs))


def dense() -> Any:
    return keras.Sequential([keras.Input((4,)), layers.Dense(1)])


def of_text() -> Any:
    counts = layers.TextVectorization(output_mode="multi_hot", vocabulary=["a", "b", "c"])
    return keras.Sequential([keras.Input((), dtype="string"), counts, layers.Dense(1)])


def of_words() -> Any:
    numbers = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    return keras.Sequential([keras.Input((1,), dtype="string"), numbers, layers.Dense(1)])


def of_rows() -> Any:
    return keras.Sequential([layers.Lambda(lambda rows: rows.to_tensor(shape=[None, 6])), layers.Embedding(9, 3),
                             layers.GlobalAveragePooling1D(), layers.Dense(1)])  # fmt: skip


def two_outputs() -> Any:
    inputs = keras.Input((4,))
    return keras.Model(inputs, {"a": layers.Dense(1, name="a")(inputs), "b": layers.Dense(2, name="b")(inputs)})


def two_inputs() -> Any:
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((4,), name="b")}
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()(list(inputs.values()))))


def listed_outputs() -> Any:
    inputs = keras.Input((4,))
    return keras.Model(inputs, [layers.Dense(1, name=name)(inputs) for name in ("first", "second")])


def nested_outputs() -> Any:
    inputs = keras.Input((4,))
    return keras.Model(inputs, {"a": {"b": layers.Dense(1)(inputs)}, "c": layers.Dense(1)(inputs)})


# What is trained: the model, x, y, and what else it is compiled with and given.
KINDS: dict[str, tuple[Callable[[], Any], Any, Any, dict[str, Any], dict[str, Any]]] = {
    "texts in objects": (of_text, WORDS, Y, {}, {}),
    "a tensor of texts": (of_text, tf.constant(WORDS), Y, {}, {}),
    "rows of texts": (of_words, tf.constant(WORDS[:, np.newaxis]), Y, {}, {}),
    "whole numbers": (dense, (10 * X).astype("int16"), Y, {}, {}),
    "tensors": (dense, tf.constant(X), tf.constant(Y), {}, {}),
    "bfloat16": (dense, tf.constant(X, tf.bfloat16), Y, {}, {}),
    "csr": (dense, scipy.sparse.csr_matrix(MOSTLY_ZERO), Y, {}, {}),
    "coo": (dense, scipy.sparse.coo_matrix(MOSTLY_ZERO), Y, {}, {}),
    "sparse": (dense, tf.sparse.from_dense(MOSTLY_ZERO), Y, {}, {"sample_weight": WEIGHTS}),
    "ragged": (of_rows, ROWS, Y, {}, {}),
    "ragged and dense": (
        lambda: Taking(lambda inputs: tf.concat([inputs["a"].to_tensor(shape=[None, 6]), inputs["b"]], 1)),
        {"a": tf.cast(ROWS, "float64"), "b": X}, Y, {}, {},
    ),
    "named": (lambda: Taking(lambda inputs: inputs.left - inputs.right), Pair(X, X[::-1]), Y, {}, {}),
    "nested": (
        lambda: Taking(lambda inputs: inputs[0][0] - inputs[0][1] + inputs[1]["c"]), [(X, 2 * X), {"c": X[::-1]}], Y,
        {}, {},
    ),
    "optional": (
        lambda: Taking(lambda inputs: inputs["a"] if inputs["b"] is None else inputs["b"]), {"a": X, "b": None}, Y,
        {}, {},
    ),
    "optional first": (lambda: Taking(lambda inputs: inputs[1]), [None, X], Y, {}, {}),
    "no target": (listed_outputs, X, [Y, None], {"loss": ["mse", None]}, {}),
    "one target": (listed_outputs, X, Y, {"loss": ["mse", None]}, {}),
    "nested losses": (
        nested_outputs, X, {"a": {"b": Y}, "c": 2 * Y}, {"loss": {"a": {"b": "mse"}, "c": "mae"}}, {},
    ),
    "a weight for all": (
        two_outputs, X, {"a": Y, "b": X[:, :2]}, {"weighted_metrics": {"a": ["mae"], "b": ["mae"]}},
        {"sample_weight": WEIGHTS},
    ),
    "a weight an output": (two_outputs, X, {"a": Y, "b": X[:, :2]}, {}, {"sample_weight": {"a": WEIGHTS, "b": Y}}),
    "weights of columns": (listed_outputs, X, [Y, Y], {}, {"sample_weight": WEIGHTS[:, np.newaxis]}),
    "classes of a sparse one": (dense, tf.sparse.from_dense(MOSTLY_ZERO), (Y > 0) * 1, {}, {"class_weight": {1: 3.0}}),
    "a split of sparse ones": (dense, tf.sparse.from_dense(MOSTLY_ZERO), Y, {}, {"validation_split": 0.3}),
    "a split of ragged ones": (of_rows, ROWS, Y, {}, {"validation_split": 0.3}),
    "a split of texts": (of_text, WORDS, Y, {}, {"validation_split": 0.3}),
    "as many steps": (dense, X, Y, {}, {"batch_size": None, "steps_per_epoch": 4}),
}  # fmt: skip


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:Gradients do not exist", "ignore:Your input ran out", "ignore:the data ran out")
@pytest.mark.parametrize("name", KINDS)
def test_it_trains_and_is_scored_as_in_keras(name: str) -> None:
    build, x, y, compiled, given = KINDS[name]

    def program(fit: Fit) -> Any:
        model = build()
        model.compile(**{"optimizer": keras.optimizers.SGD(0.05), "loss": "mse", "metrics": None, **compiled})
        return model, [fit(model, x, y, **{"epochs": 2, **given})]

    ours = assert_same(program)
    weights = {"sample_weight": given["sample_weight"]} if "sample_weight" in given else {}
    expected = ours.evaluate(x, y, verbose=0, batch_size=5, return_dict=True, **weights)
    found = tfmb.evaluate(ours, x, y, verbose=0, batch_size=5, return_dict=True, **weights)
    assert found == pytest.approx(expected, abs=1e-11)
    theirs, predicted = ours.predict(x, verbose=0, batch_size=5), tfmb.predict(ours, x, batch_size=5)
    keras.tree.assert_same_structure(theirs, predicted)
    for a, b in zip(keras.tree.flatten(theirs), keras.tree.flatten(predicted), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-12)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("name", ["csr", "ragged", "texts in objects", "optional", "no target"])
def test_it_validates_as_in_fit(name: str) -> None:
    build, x, y, compiled, _ = KINDS[name]

    def program(fit: Fit) -> Any:
        model = build()
        model.compile(**{"optimizer": keras.optimizers.SGD(0.05), "loss": "mse", **compiled})
        return model, [fit(model, x, y, validation_data=(x, y), validation_steps=2)]

    assert_same(program, atol=1e-5)


@pytest.mark.compile
def test_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))

    def program(fit: Fit) -> Any:
        model = dense()
        model.compile(keras.optimizers.SGD(0.05), "mse")
        return model, [fit(model, frame, pandas.Series(Y[:, 0]), sample_weight=pandas.Series(WEIGHTS), epochs=2)]

    ours = assert_same(program, atol=1e-6)
    for x in (frame, frame.astype("float64").assign(d=np.arange(18)), {"a": frame}["a"]):
        np.testing.assert_allclose(tfmb.predict(ours, x), ours.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    texts = of_words()  # which Keras refuses in a frame
    expected = texts.predict(tf.constant(WORDS[:, np.newaxis]), verbose=0)
    np.testing.assert_allclose(tfmb.predict(texts, pandas.Series(WORDS)), expected, rtol=1e-6)


@pytest.mark.compile
@pytest.mark.parametrize("rows", [list(WORDS), WORDS[:, np.newaxis]], ids=["a list", "a table of objects"])
def test_lists_and_tables_of_texts_are_one_array(rows: Any) -> None:
    """Which Keras refuses, as it refuses lists of numbers."""
    model = of_text() if isinstance(rows, list) else of_words()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"Unrecognized data type|Invalid dtype"):
        model.predict(rows, verbose=0)
    found = tfmb.evaluate(model, rows, Y.tolist(), verbose=0)
    assert found == pytest.approx(model.evaluate(tf.constant(rows), Y, verbose=0), rel=1e-6)
    np.testing.assert_allclose(tfmb.predict(model, rows), model.predict(tf.constant(rows), verbose=0), rtol=1e-6)


@pytest.mark.compile
@pytest.mark.parametrize("x", [ROWS, tf.sparse.from_dense(MOSTLY_ZERO), WORDS], ids=["ragged", "sparse", "texts"])
def test_each_epoch_has_an_order_of_the_seed(x: Any) -> None:
    def first_of_each(seed: int) -> list[float]:
        seen: list[float] = []

        class Watching(keras.Model):
            def call(self, inputs: Any, training: bool = False) -> Any:
                del training
                return tf.zeros([tf.shape(inputs)[0], 1]) + 0.0 * self.weight

            def build(self, shape: Any) -> None:
                self.weight = self.add_weight(shape=(1,))
                self.built = True

        class Target(keras.losses.Loss):
            def call(self, y: Any, y_pred: Any) -> Any:
                return tf.cast(y, y_pred.dtype)[:, 0] + tf.reduce_sum(0.0 * y_pred)

        model = Watching()
        model.build(None)
        model.compile("sgd", Target())
        seen += tfmb.fit(model, x, np.arange(18)[:, np.newaxis], batch_size=1, epochs=3, steps_per_epoch=1, seed=seed,
                         verbose=0).history["loss"]  # fmt: skip
        return seen

    assert first_of_each(3) == first_of_each(3) != first_of_each(4)


@pytest.mark.compile
@pytest.mark.parametrize("name", ["ragged", "sparse", "texts in objects"])
def test_a_run_of_it_goes_on_exactly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, x, y, _, _ = KINDS[name]
    stop = StopAfter(monkeypatch)

    def weights(folder: str) -> Any:
        keras.utils.set_random_seed(0)
        model = build()
        model.compile("adam", "mse")
        run: dict[str, Any] = {"run_dir": tmp_path / folder, "resume": True, "checkpoint_every": 2}
        return tfmb.fit(model, x, y, batch_size=4, epochs=2, seed=3, verbose=0, **run).model.get_weights()

    whole, stop.batches = weights("whole"), 7
    with pytest.raises(PreemptedError):
        weights("cut")
    stop.batches = None
    for a, b in zip(weights("cut"), whole, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("words", "build", "x", "y", "given"),
    [
        (
            "sample_weight has another structure than y", two_outputs, X, {"a": Y, "b": X},
            {"sample_weight": {"a": WEIGHTS}},
        ),
        ("sample_weight for all of several outputs must be [n]", listed_outputs, X, [Y, Y], {"sample_weight": X}),
        ("class_weight needs a single output", listed_outputs, X, [Y, Y], {"class_weight": {0: 1.0}}),
        ("class_weight and sample_weight", dense, X, Y, {"class_weight": {0: 1.0}, "sample_weight": WEIGHTS}),
        ("unequal length", dense, X, Y[:5], {}),
        ("unequal length", dense, tf.sparse.from_dense(X), Y[:5], {}),
        ("x has dtype object", dense, np.array([object()] * 18), Y, {}),
        ("in the `loss` argument, can't be found", two_outputs, X, {"a": Y}, {}),
        ("Missing data for input", two_inputs, {"a": X}, Y, {}),
        ("validation_split", dense, scipy.sparse.csr_matrix(X), Y, {"validation_split": 0.99}),
    ],
)  # fmt: skip
def test_what_fit_refuses_is_refused_in_one_line(
    words: str, build: Callable[[], Any], x: Any, y: Any, given: dict[str, Any]
) -> None:
    model = build()
    model.compile("sgd", "mse")
    with pytest.raises((ValueError, TypeError, KeyError)):
        model.fit(x, y, verbose=0, **given)
    with pytest.raises(TfmbError) as caught:
        tfmb.fit(model, x, y, verbose=0, **given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [{"virtual_replicas": 2}, {"micro_batch_size": 2}, {"pad_batches": True}],
                         ids=lambda given: next(iter(given)))  # fmt: skip
@pytest.mark.parametrize("kind", ["sparse", "ragged", "optional", "no target"])
def test_what_cannot_be_cut_is_refused_by_name(kind: str, given: dict[str, Any]) -> None:
    build, x, y, compiled, _ = KINDS[kind]
    model = build()
    model.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    names = {"sparse": "SparseTensor", "ragged": "RaggedTensor", "optional": "None", "no target": "None"}
    with pytest.raises(ConfigError) as caught:
        tfmb.fit(model, x, y, verbose=0, batch_size=5, **given)
    assert names[kind] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["sparse", "ragged", "optional"])
def test_several_devices_refuse_what_cannot_be_cut(kind: str) -> None:
    build, x, y, _, _ = KINDS[kind]
    model = build()
    model.compile("sgd", "mse")
    for call in (
        lambda: tfmb.evaluate(model, x, y, devices=2, verbose=0),
        lambda: tfmb.predict(model, x, devices=2),
    ):
        with pytest.raises(ConfigError, match="cannot be cut into parts"):
            call()


@pytest.mark.compile
def test_texts_are_cut() -> None:
    found = []
    for parts in ("auto", 2):
        keras.utils.set_random_seed(0)
        model = of_text()
        model.compile("sgd", "mse")
        found.append(tfmb.fit(model, WORDS, Y, seed=0, verbose=0, virtual_replicas=parts).history["loss"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_outputs_of_several_shapes_are_a_ragged_tensor_as_in_keras() -> None:
    class Padded(keras.Model):
        def call(self, rows: Any) -> Any:
            return {"dense": tf.cast(rows, tf.float32).to_tensor(), "ragged": rows, "number": tf.constant(1.0)}

    model = Padded()
    model.compile("sgd")
    theirs, ours = model.predict(ROWS, batch_size=5, verbose=0), tfmb.predict(model, ROWS, batch_size=5)
    assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs.items()}
    assert ours["dense"].to_list() == theirs["dense"].to_list()
    assert ours["ragged"].to_list() == theirs["ragged"].to_list()
    np.testing.assert_array_equal(ours["number"], theirs["number"])
