"""Batches by the numbers of their rows are those of the pipeline, and move on only as far as they were used."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.backend import keras
from tfmb.data.batches import Order, stream
from tfmb.data.source import Source
from tfmb.training.input import array_pipeline as rows_module
from tfmb.training.input.array_pipeline import RowsOfBatches, arrays_on_device, gather


def make(order: Order, first_update: int = 0, weights: bool = False) -> tuple[Source, RowsOfBatches]:
    n = order.num_examples
    x = {"a": np.arange(n, dtype="float32"), "b": [np.arange(2 * n).reshape(n, 2)]}
    source = Source.from_arrays(x, np.arange(n), np.linspace(0, 1, n) if weights else None)
    return source, RowsOfBatches(arrays_on_device(source), order, first_update)


def drawn(batches: RowsOfBatches, count: int) -> list[Any]:
    """The batches of one block, which are left behind."""
    numbers, found = batches.take(count)
    batches.move_on(int(found))
    return [gather(batches.arrays, row) for row in numbers[:found]]


@pytest.mark.compile
@settings(deadline=None, max_examples=25)
@given(
    examples=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    first_update=st.integers(0, 30),
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    weights=st.booleans(),
)
def test_batches_are_those_of_the_pipeline(
    examples: int, batch_size: int, first_update: int, counts: list[int], weights: bool
) -> None:
    order = Order(num_examples=examples, batch_size=batch_size, seed=5)
    source, batches = make(order, first_update, weights)
    expected = stream(source, order, first_update)
    for count in counts:
        found = drawn(batches, count)
        assert 1 <= len(found) <= count
        for batch in found:
            keras.tree.assert_same_structure(batch, other := next(expected))
            for a, b in zip(keras.tree.flatten(batch), keras.tree.flatten(other), strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)


def test_blocks_have_one_shape_and_a_smaller_last_batch_comes_alone() -> None:
    _, batches = make(Order(num_examples=11, batch_size=4, seed=0))
    numbers, count = batches.take(50)
    assert count == 2
    shape = numbers.shape
    assert shape[1] == 4
    batches.move_on(1)  # as where the first of them was not finite
    again, count = batches.take(50)
    assert count == 1
    assert again.shape == shape
    np.testing.assert_array_equal(again[0], numbers[1])
    batches.move_on(1)
    assert batches.take(50).numbers.shape == (1, 3)
    batches.move_on(1)
    assert batches.take(1).numbers.shape == shape


def test_blocks_of_large_batches_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_MOST_NUMBERS", 10)
    _, batches = make(Order(num_examples=40, batch_size=4, seed=0))
    assert batches.take(50).numbers.shape == (2, 4)
