"""Examples read by their number: the bits of the same arrays in memory, bounded reading ahead, and plain refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from cases import here

import tfmb
from tfmb.backend import keras, tf
from tfmb.data import Augmentation
from tfmb.data.batches import Order, batched
from tfmb.data.records import Records, has_random_access
from tfmb.data.source import Source
from tfmb.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("fresh_keras")

layers = keras.layers
_random = np.random.default_rng(0)
X = _random.normal(size=(43, 5)).astype("float32")
Y = _random.integers(0, 3, 43)
WEIGHT = _random.uniform(0.5, 2.0, 43).astype("float32")
FIT: dict[str, Any] = {"batch_size": 8, "epochs": 2, "seed": 5, "verbose": 0, "jit_compile": False}


class Examples:
    """A source of `example(i)`s; `read` are the numbers asked for."""

    def __init__(self, example: Any, size: int = 43) -> None:
        self.example, self.size = example, size
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> Any:
        self.read.append(number)
        return self.example(number)


class ManyAtOnce(Examples):
    """The same, which reads a list of them."""

    def __getitems__(self, numbers: list[int]) -> list[Any]:
        return [self[number] for number in numbers]


def pair(number: int) -> Any:
    return X[number], int(Y[number])


def build() -> Any:
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(6, "tanh"), tfmb.layers.Dropout(0.2), layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def trained(*data: Any, **arguments: Any) -> Any:
    return tfmb.fit(build(), *data, **{**FIT, **arguments})


def assert_same(found: Any, expected: Any) -> None:
    for a, b in zip(found.model.get_weights(), expected.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.history == expected.history


@pytest.mark.compile
@pytest.mark.parametrize("kind", here([Examples, ManyAtOnce], [Examples]))
def test_training_has_the_bits_of_arrays(kind: Any) -> None:
    expected = trained(X, Y, validation_data=(X[:9], Y[:9]))
    assert_same(trained(kind(pair), validation_data=kind(pair, 9)), expected)
    weighed = kind(lambda i: (X[i], Y[i], WEIGHT[i]))
    assert_same(trained(weighed), trained(X, Y, sample_weight=WEIGHT))
    assert_same(trained(kind(pair), class_weight={1: 3.0}), trained(X, Y, class_weight={1: 3.0}))
    assert_same(trained(kind(pair), devices=2), trained(X, Y, devices=2))


def test_scoring_and_prediction_are_those_of_arrays() -> None:
    model, source = build(), Examples(pair)
    assert tfmb.evaluate(model, source, verbose=0) == tfmb.evaluate(model, X, Y, verbose=0)
    np.testing.assert_array_equal(tfmb.predict(model, source, verbose=0), tfmb.predict(model, X, verbose=0))


def test_structures_and_dtypes_stay() -> None:
    def example(i: int) -> Any:
        return {"a": X[i].astype("float64"), "b": [np.uint8(i), bool(i % 2)]}, (Y[i], X[i, :1])

    records = Records.from_source(Examples(example))
    x, y, weight = next(iter(batched(records, Order(num_examples=43, batch_size=4, seed=0, shuffle=False), 2)))
    assert (x["a"].dtype, x["b"][0].dtype, x["b"][1].dtype, weight) == ("float32", "uint8", "bool", ())
    np.testing.assert_array_equal(x["a"], X[8:12])
    np.testing.assert_array_equal(x["b"][0], [8, 9, 10, 11])
    np.testing.assert_array_equal(y[1], X[8:12, :1])


@pytest.mark.parametrize("first", [0, 3, 11])
def test_any_update_can_be_the_first(first: int) -> None:
    order = Order(num_examples=43, batch_size=8, seed=3)
    arrays, records = Source.from_arrays(X, Y), Records.from_source(Examples(pair))
    for (x, y, _), (_, theirs, _) in zip(
        batched(records, order, first).take(8), batched(arrays, order, first).take(8), strict=True
    ):
        np.testing.assert_array_equal(y, theirs)
        assert x.shape[0] == len(theirs)


def test_no_more_is_read_ahead_than_a_few_batches() -> None:
    source = Examples(lambda i: (np.full(3, i, "float32"), 0), 100_000)
    records = Records.from_source(source)
    before = len(source.read)
    assert before <= 70
    batches = iter(batched(records, Order(num_examples=100_000, batch_size=10, seed=0)))
    for _ in range(20):
        next(batches)
    assert 200 <= len(source.read) - before <= 500


def test_augmented_images_are_those_of_arrays() -> None:
    images = _random.integers(0, 256, (20, 8, 8, 1)).astype("uint8")
    source, order = Examples(lambda i: (images[i], 0), 20), Order(num_examples=20, batch_size=6, seed=1)
    changes = Augmentation.parse("shift=2,rotate=10")
    arrays = Source.from_arrays(images, np.zeros(20, np.int64))
    for ours, theirs in zip(
        batched(Records.from_source(source), order, 0, changes).take(8),
        batched(arrays, order, 0, changes).take(8),
        strict=True,
    ):
        np.testing.assert_array_equal(ours[0], theirs[0])


class Pictures(tfds.core.GeneratorBasedBuilder):
    """Small images with labels, as TFDS prepares them."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        features = {"image": tfds.features.Image(shape=(6, 5, 3)), "label": tfds.features.ClassLabel(num_classes=4)}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({**features, "id": tfds.features.Text()}),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> Any:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Any:
        random = np.random.default_rng(3)
        for i in range(30):
            image = random.integers(0, 256, (6, 5, 3)).astype(np.uint8)
            yield i, {"image": image, "label": i % 4, "id": str(i)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pictures, "pkg_dir_path", folder)
        builder = Pictures(data_dir=str(folder), file_format="array_record")
        builder.download_and_prepare()
        return builder.as_data_source(split="train")


def test_tfds_with_array_record_is_read_by_number(pictures: Any) -> None:
    assert has_random_access(pictures)
    records = Records.from_source(pictures, "pictures")
    assert records.size == 30
    order = Order(num_examples=30, batch_size=7, seed=1)
    found = list(batched(records, order).take(5))
    rows = [int(row) for step in range(5) for row in order.indices(0, step)]
    images = np.concatenate([image for image, _, _ in found])
    labels = np.concatenate([label for _, label, _ in found])
    np.testing.assert_array_equal(images, np.stack([pictures[row]["image"] for row in rows]))
    np.testing.assert_array_equal(labels, [pictures[row]["label"] for row in rows])
    assert (images.dtype, found[0][2]) == (np.uint8, ())


def test_what_tfds_cannot_read_is_told(pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 5, 3)), layers.Flatten(), layers.Dense(4)])
    data, whole = type(pictures.data_source), type(pictures.data_source).__getitems__

    def broken(self: Any, numbers: Any) -> Any:
        if 17 in numbers and len(numbers) < 10:
            raise OSError("the disk is gone")
        return whole(self, numbers)

    monkeypatch.setattr(data, "__getitems__", broken)
    with pytest.raises(
        DataError, match=r"^example \d+ of \w+/1.0.0 cannot be read \(OSError: the disk is gone\): mend"
    ):
        tfmb.fit(model, pictures, batch_size=7, optimizer="sgd", loss="mse", verbose=0, seed=0)


@pytest.mark.parametrize("verb", ["fit", "evaluate", "predict"])
def test_example_that_cannot_be_read_is_named(verb: str) -> None:
    def example(i: int) -> Any:
        if i == 10:
            raise KeyError("the tenth")
        return pair(i % 43)

    source = Examples(example, 1000)  # of which the fingerprint does not read the tenth
    arguments: dict[str, Any] = {"verbose": 0, "batch_size": 8}
    if verb == "fit":
        arguments |= {"seed": 0, "shuffle": False}
    with pytest.raises(DataError, match=r"^example 10 of x cannot be read \(KeyError: 'the tenth'\): mend the source$"):
        getattr(tfmb, verb)(build(), source, **arguments)


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (lambda i: X[i], "an example is \\(x, y\\)"),
        (lambda i: {"image": X[i], "label": 0}, "not dict"),
        (lambda i: (X[i, : 1 + i % 2], 0), "ValueError: all input arrays must have the same shape"),
        (lambda i: ("word", 0), "dtype <U4 is no number"),
        (lambda i: (X[i], 0) if i % 2 else (X[i], 0, 1.0), "cannot be read"),
    ],
)
def test_examples_of_another_kind_are_refused(example: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Records.from_source(Examples(example))


def test_what_does_not_go_with_whole_examples_is_refused() -> None:
    source = Examples(pair)
    with pytest.raises(DataError, match="there are no examples"):
        trained(Examples(pair, 0))
    for arguments, words in (
        ({"y": Y}, "y cannot be given with a Examples, which holds whole examples"),
        ({"sample_weight": WEIGHT}, "sample_weight cannot be given with a Examples"),
        ({"validation_split": 0.2}, "validation_split needs arrays: give validation_data, another Examples"),
    ):
        with pytest.raises(ConfigError, match=words):
            trained(source, **arguments)


def test_fingerprint_is_that_of_the_examples() -> None:
    same, other = Records.from_source(ManyAtOnce(pair)), Records.from_source(Examples(lambda i: pair(42 - i)))
    assert Records.from_source(Examples(pair)).fingerprint == same.fingerprint != other.fingerprint
    assert Records.from_source(Examples(pair, 42)).fingerprint != same.fingerprint


@pytest.mark.compile
def test_run_goes_on_where_it_was(tmp_path: Path) -> None:
    expected = trained(Examples(pair))

    class Stop(keras.callbacks.Callback):
        at = 0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == self.at:
                raise RuntimeError("stopped")

    stop, goes_on = Stop(), Stop()
    goes_on.at = 9
    given: dict[str, Any] = {"run_dir": tmp_path / "run", "resume": True, "checkpoint_every": 4}
    with pytest.raises(RuntimeError, match="stopped"):
        trained(Examples(pair), callbacks=[stop], **given)
    with pytest.raises(ConfigError, match="fingerprint"):
        trained(Examples(lambda i: pair(42 - i)), callbacks=[goes_on], **given)
    found = trained(Examples(pair), callbacks=[goes_on], **given)
    assert_same(found, expected)


def test_arrays_of_any_kind_have_no_random_access() -> None:
    for x in (X, X.tolist(), {"a": X}, (X, X), tf.constant(X), "text", iter(X)):
        assert not has_random_access(x)
