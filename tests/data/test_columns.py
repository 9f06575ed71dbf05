"""Rows of ragged and sparse tensors by their numbers: those that TensorFlow gathers, and refusals."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.backend import tf
from tfmb.data.columns import Columns, SparseRows
from tfmb.errors import DataError

X = np.arange(15.0).reshape(5, 3)
DENSE = np.where(X % 2, X, 0.0)
SPARSE = tf.sparse.from_dense(DENSE)
RAGGED = tf.ragged.constant([[1.0], [], [2.0, 3.0], [4.0], [5.0, 6.0, 7.0]])


def columns(x: Any = RAGGED, y: Any = X, sample_weight: Any = None) -> Columns:
    return Columns(examples=x, labels=y, sample_weight=sample_weight, name="mine")


@settings(deadline=None, max_examples=30)
@given(numbers=st.lists(st.integers(0, 4), max_size=8))
def test_rows_of_a_sparse_tensor(numbers: list[int]) -> None:
    found = SparseRows(SPARSE).gather(tf.constant(numbers, tf.int64))
    tf.debugging.assert_equal(found.dense_shape, tf.constant([len(numbers), 3], tf.int64))
    np.testing.assert_array_equal(tf.sparse.to_dense(found), DENSE[numbers])


def test_a_sparse_tensor_of_more_axes_in_any_order() -> None:
    dense = np.arange(24).reshape(4, 3, 2) % 5
    whole = tf.sparse.from_dense(dense)
    mixed = tf.SparseTensor(whole.indices[::-1], whole.values[::-1], whole.dense_shape)
    rows = SparseRows(mixed)
    np.testing.assert_array_equal(tf.sparse.to_dense(rows.gather([3, 0])), dense[[3, 0]])
    part = rows[1:3]
    assert (len(part), part.shape.as_list()) == (2, [2, 3, 2])
    np.testing.assert_array_equal(tf.sparse.to_dense(part.gather([1])), dense[[2]])


def test_the_shape_of_rows_is_known_while_they_are_traced() -> None:
    data = tf.data.Dataset.from_tensors([1, 2]).map(SparseRows(SPARSE).gather)
    assert data.element_spec.shape.as_list()[1:] == [3]


def test_records_are_the_rows_with_absent_parts_as_the_feeds_have_them() -> None:
    records = columns({"a": RAGGED, "b": [SparseRows(SPARSE), None]}, X, np.arange(5.0)).records()
    assert (records.size, records.name, records.dense) == (5, "mine", False)
    x, y, weight = records.read(tf.constant([4, 0], tf.int64))
    assert x["a"].to_list() == [[5.0, 6.0, 7.0], [1.0]]
    np.testing.assert_array_equal(tf.sparse.to_dense(x["b"][0]), DENSE[[4, 0]])
    assert x["b"][1] is None
    np.testing.assert_array_equal(y, X[[4, 0]])
    np.testing.assert_array_equal(weight, [4.0, 0.0])
    assert columns(RAGGED, None).records().read(tf.constant([0]))[1:] == ((), ())


def test_rows_are_those_of_a_slice() -> None:
    part = columns([RAGGED, SparseRows(SPARSE)], {"a": X, "b": None}).rows(slice(3, None), name="last")
    assert (part.size, part.name) == (2, "last")
    assert part.examples[0].to_list() == [[4.0], [5.0, 6.0, 7.0]]
    np.testing.assert_array_equal(tf.sparse.to_dense(part.examples[1].gather([0, 1])), DENSE[3:])
    assert part.labels["b"] is None


def test_the_fingerprint_is_of_all_values_and_of_where_they_lie() -> None:
    def fingerprint(*parts: Any) -> str:
        return columns(*parts).records().fingerprint

    moved = tf.ragged.constant([[1.0, 2.0], [], [3.0], [4.0], [5.0, 6.0, 7.0]])
    found = [
        fingerprint(RAGGED), fingerprint(moved), fingerprint(RAGGED, X + 1), fingerprint(SparseRows(SPARSE)),
        fingerprint(SparseRows(tf.sparse.from_dense(DENSE[::-1]))), fingerprint([RAGGED]),
        fingerprint(tf.ragged.map_flat_values(tf.strings.as_string, RAGGED)),
    ]  # fmt: skip
    assert len(set(found)) == len(found)
    assert fingerprint(tf.identity(RAGGED)) == found[0]
    assert fingerprint(SparseRows(tf.sparse.from_dense(DENSE))) == found[3]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((RAGGED, X[:4]), "x has 5, y has 4"),
        ((RAGGED[:0], X[:0]), "no examples"),
        ((None, RAGGED), "x is needed"),
        ((RAGGED, np.array(1.0)), "scalar"),
        ((RAGGED, X * np.nan), "y holds NaN"),
        ((RAGGED / 0.0, X), "x holds NaN or infinite"),
        ((SparseRows(SPARSE * np.inf), X), "x holds NaN or infinite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_no_sense_is_refused_in_one_line(parts: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        columns(*parts)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
