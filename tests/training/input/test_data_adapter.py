"""`fit`'s data arguments: what becomes an array, where validation is cut off, what classes weigh."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tfmb.backend import keras, tf
from tfmb.data.source import Source
from tfmb.errors import ConfigError, DataError
from tfmb.training.input.array_pipeline import ArrayPipeline
from tfmb.training.input.data_adapter import (
    TrainingData,
    make_pipeline,
    split_validation,
    to_source,
    validation_pipeline,
)
from tfmb.training.input.dataset_pipeline import DatasetPipeline

X, Y = np.arange(20.0).reshape(10, 2), np.arange(10) % 3
DEFAULTS: dict[str, Any] = {"shuffle": False}


def made(*data: Any, **more: Any) -> Any:
    return make_pipeline(TrainingData(*data, **{**DEFAULTS, **more}), seed=0)


def arrays_of(x: Any, y: Any, sample_weight: Any = None) -> Source:
    source = to_source(x, y, sample_weight)
    assert isinstance(source, Source)
    return source


def held_out_of(data: Any, batch_size: int | None, steps: int | None) -> ArrayPipeline:
    pipeline = validation_pipeline(data, batch_size, steps)
    assert isinstance(pipeline, ArrayPipeline)
    return pipeline


class Frame:
    """What a pandas object looks like from here."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    @property
    def iloc(self) -> np.ndarray:
        """By which a series is known: a polars one is an array as it is."""
        return self.values

    def to_numpy(self) -> np.ndarray:
        return self.values

    def __len__(self) -> int:
        return len(self.values)


def test_floats_become_floatx_and_other_dtypes_stay() -> None:
    source = arrays_of({"a": X, "b": [Y, X.astype("uint8")]}, Y.astype("int16"), np.ones(10))
    assert source.examples["a"].dtype == source.sample_weight.dtype == np.float32
    assert [part.dtype for part in source.examples["b"]] == [np.int64, np.uint8]
    assert source.labels.dtype == np.int16
    assert source.size == 10


@pytest.mark.usefixtures("float64")
def test_floatx_of_64_bits() -> None:
    assert arrays_of(X.astype("float32"), Y).examples.dtype == np.float64


@pytest.mark.parametrize(
    "x", [X, tf.constant(X), X.tolist(), tuple(map(tuple, X.tolist())), Frame(X), list(map(tuple, X.tolist()))],
    ids=["array", "tensor", "lists", "tuples", "frame", "list of tuples"],
)  # fmt: skip
def test_kinds_of_one_array(x: Any) -> None:
    found = arrays_of(x, Y).examples
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, X.astype("float32"))


def test_series_is_a_column_as_in_keras() -> None:
    source = arrays_of({"x": Frame(X[:, 0])}, Frame(Y), Frame(np.ones(10)))
    assert source.examples["x"].shape == source.labels.shape == (10, 1)


def test_plain_list_of_numbers_is_one_array() -> None:
    source = arrays_of([0.5, 1.5, 2.5], [1, 0, 1])
    np.testing.assert_array_equal(source.examples, np.array([0.5, 1.5, 2.5], "float32"))
    assert source.labels.shape == (3,)


def test_list_of_arrays_is_several_inputs() -> None:
    source = arrays_of([X, Y], Y)
    assert [part.shape for part in source.examples] == [(10, 2), (10,)]
    nested = arrays_of(((X, Y), [X]), Y).examples
    assert [part.shape for part in keras.tree.flatten(nested)] == [(10, 2), (10,), (10, 2)]
    assert arrays_of([None, X], [Y, None]).labels[1] is None


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (tf.ragged.constant([[1.0], [2.0, 3.0]]), "RaggedTensor"),
        (tf.sparse.from_dense(X), "SparseTensor"),
    ],
    ids=["ragged", "sparse"],
)
def test_ragged_and_sparse_are_refused_by_name(value: Any, words: str, nested: bool) -> None:
    with pytest.raises(ConfigError, match=rf"\A{'x.*key' if nested else 'x is'}[^\n]*{words}[^\n]*\Z"):
        to_source({"key": value} if nested else value, Y)


def test_what_is_no_array_of_numbers_is_refused_in_one_line() -> None:
    for x in ([[1.0, 2.0], [3.0]], np.array([object()] * 10), 5.0, []):
        with pytest.raises(DataError) as caught:
            to_source(x, Y)
        assert "\n" not in str(caught.value)
    assert arrays_of(X, None).labels is None  # the model may know its own loss


@settings(deadline=None)
@given(rows=st.integers(2, 200), share=st.floats(0.001, 0.999))
def test_validation_is_the_last_rows_that_keras_takes(rows: int, share: float) -> None:
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split

    numbers = np.arange(rows)
    try:
        (expected,), (held_out,) = train_validation_split((numbers,), share)
    except ValueError:
        with pytest.raises(ConfigError, match="validation_split="):
            split_validation(to_source(numbers, numbers), share)
        return
    assume(len(expected) and len(held_out))
    train, validation = split_validation(to_source(numbers, numbers, numbers * 1.0), share)
    np.testing.assert_array_equal(train.examples, expected)
    np.testing.assert_array_equal(validation.labels, held_out)
    np.testing.assert_array_equal(validation.sample_weight, held_out)


@pytest.mark.parametrize("share", [1.0, 1.5, -0.1, 0.99])
def test_split_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=rf"\Avalidation_split={share}[^\n]*\Z"):
        split_validation(to_source(np.arange(3), np.arange(3)), share)


@pytest.mark.parametrize(
    "y",
    [Y, Y[:, np.newaxis], np.eye(3)[Y], Y.astype("float32"), Y.astype("uint8")],
    ids=["sparse", "column", "one-hot", "floats", "bytes"],
)
def test_class_weights_become_sample_weights(y: Any) -> None:
    given_weights = {0: 2.0, 2: 0.5}  # class 1 is left out: it weighs 1
    expected = np.array([2.0, 1.0, 0.5])[Y]
    pipeline, source, _ = made(X, y, None, given_weights, 4)
    assert isinstance(pipeline, ArrayPipeline)
    assert source is not None
    np.testing.assert_array_equal(source.sample_weight, expected)
    assert source.sample_weight.dtype == np.float32
    batches = tf.data.Dataset.from_tensor_slices((X, y)).batch(4)
    pipeline, source, _ = made(batches, None, None, given_weights, None)
    assert isinstance(pipeline, DatasetPipeline)
    assert source is None
    found = np.concatenate([weight.numpy() for _, _, weight in pipeline.epoch(0).iterator])
    np.testing.assert_array_equal(found, expected)


def test_validation_that_is_split_off_has_no_class_weights() -> None:
    options = {**DEFAULTS, "validation_split": 0.2}
    _, source, held_out = made(X, Y, None, {0: 2.0}, 4, **options)
    assert source is not None
    assert source.size == 8
    assert held_out is not None
    assert held_out.sample_weight is None


def test_batch_size_is_32_unless_given() -> None:
    rows = np.arange(70)
    pipeline, *_ = made(rows, rows, None, None, None)
    assert pipeline.steps == 3
    assert held_out_of((rows, rows), None, None).steps == 3
    assert held_out_of((rows, rows), 7, None).steps == 10
    assert held_out_of((rows, rows), 100, None).steps == 1


def test_validation_feed_takes_pairs_triples_sources_and_datasets() -> None:
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    for data in ((X, Y), [X, Y], (X, Y, np.ones(10)), to_source(X, Y), batches, (batches,), (pair for pair in batches)):
        pipeline = validation_pipeline(data, 4, 2)
        found = pipeline.once()
        assert 2 in (found.steps, found.most)
        x, y, weight = next(found.iterator)
        np.testing.assert_array_equal(x, X[:4])
        np.testing.assert_array_equal(y, Y[:4])
        assert np.shape(weight) in ((0,), (4,))


class DataLoader:
    """None of PyTorch's, and no iterable."""

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("make", "words"),
    [(lambda: iter([X]), "list_iterator"), (lambda: map(abs, [X]), "map"), (DataLoader, "DataLoader")],
    ids=["iterator", "map", "DataLoader"],
)
def test_what_fit_does_not_take_is_refused_by_name(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"\Ax is a {words}, which fit does not take either: [^\n]*\Z"):
        made(make(), Y, None, None, 4)
    with pytest.raises(ConfigError, match=rf"\Avalidation_data is a {words}, which [^\n]*\Z"):
        validation_pipeline(make(), None, None)


def test_a_dataset_that_was_shared_out_is_refused_by_name() -> None:
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    shared = tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"]).experimental_distribute_dataset(batches)
    with pytest.raises(ConfigError, match=r"\Ax is a DistributedDataset: give the tf.data.Dataset [^\n]*\Z"):
        made(shared, None, None, None, None)


def test_steps_make_batches_of_arrays_as_in_keras() -> None:
    pipeline, *_ = made(X, Y, None, None, None, steps_per_epoch=3)
    assert (pipeline.batch_size, pipeline.steps) == (4, 3)
    assert made(X, Y, None, None, 5, steps_per_epoch=3)[0].batch_size == 5
    assert held_out_of((X, Y), None, 4).batch_size == 3
