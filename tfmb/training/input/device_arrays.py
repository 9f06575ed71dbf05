"""Batches of arrays that are on the device already: only the numbers of their rows travel, many batches at a time."""

from typing import Any, NamedTuple

import numpy as np

from tfmb.backend import keras, tf
from tfmb.data.batches import Order
from tfmb.data.source import Source
from tfmb.types import Batch, Dataset, Tensor

__all__ = ["Arrays", "Rows", "RowsOfBatches", "arrays_on_device", "first_batches", "gather", "spec_of"]

# Batches in one block of row numbers, and the most numbers that one may have.
_MOST_BATCHES, _MOST_NUMBERS = 100, 1 << 20

# `(x, y, sample_weight)`: tensors `[n, ...]` in any structure, None for one that is not there; an empty tuple for an
# absent part.
Arrays = tuple[Any, Any, Any]


class Rows(NamedTuple):
    """The rows of some consecutive batches.

    Attributes:
        numbers: integers `[at least count, batch]`; those past `count` fill up the shape, and no batch is made of them.
        count: int32 scalar, the number of batches.
    """

    numbers: Any
    count: Any


class RowsOfBatches:
    """The batches of arrays in the order of `Order`, by the numbers of their rows.

    They are the batches of `tfmb.data.batches.batched`, to the bit, but nothing is copied on the host and no pipeline
    runs beside the updates.

    Args:
        arrays: all examples.
        order: which of them each update takes.
        first_update: the number of the first update to draw, counted from 0 over all epochs.

    Attributes:
        arrays: the same.
        batch_size: rows of all batches but the last of an epoch.
        element_spec: of a batch, as of a `tf.data` iterator.
    """

    def __init__(self, arrays: Arrays, order: Order, first_update: int = 0) -> None:
        self.arrays = arrays
        self.batch_size = order.batch_size
        self.element_spec = spec_of(arrays)
        self._order = order
        self._update = first_update
        self._most = max(1, min(_MOST_BATCHES, _MOST_NUMBERS // order.batch_size))
        self._epoch = -1
        self._permutation = np.zeros(0, np.int64)

    def take(self, count: int) -> Rows:
        """The next batches: `count` of them, or fewer where the pass over the data or a block ends.

        They stay the next ones until `move_on`: a call may end before it has used all of them. All whole batches come
        in blocks of one shape, and a smaller last batch of an epoch alone.
        """
        size, examples = self._order.batch_size, self._order.num_examples
        epoch, step = divmod(self._update, self._order.steps_per_epoch)
        if epoch != self._epoch:
            self._permutation, self._epoch = self._order.permutation(epoch).numpy(), epoch
        start = step * size
        whole = (examples - start) // size
        if not whole:
            return Rows(self._permutation[np.newaxis, start:], np.int32(1))
        count = min(count, whole, self._most)
        numbers = np.zeros((self._most, size), np.int64)
        numbers[:count] = self._permutation[start : start + count * size].reshape(count, size)
        return Rows(numbers, np.int32(count))

    def move_on(self, count: int) -> None:
        """Leaves `count` batches behind."""
        self._update += count


def arrays_on_device(source: Source) -> Arrays:
    """The arrays of a source as tensors."""
    arrays: Arrays = keras.tree.map_structure(tf.constant, source.parts, none_is_leaf=False)
    return keras.tree.lists_to_tuples(arrays)


def spec_of(arrays: Arrays) -> Arrays:
    """The specs of arrays or tensors with any number of rows."""
    spec: Arrays = keras.tree.map_structure(
        lambda array: tf.TensorSpec([None, *array.shape[1:]], array.dtype), arrays, none_is_leaf=False
    )
    return spec


def first_batches(batches: Dataset, batch_size: int, count: int) -> RowsOfBatches | None:
    """Returns some of the first batches of a pipeline, on the device, again and again; None if no batch is whole.

    Args:
        batches: a `tf.data.Dataset` of `(x, y, sample_weight)`.
        batch_size: of a whole one; smaller ones are left out.
        count: the number of batches to look at.
    """
    drawn = list(batches.take(count))
    whole = [batch[:3] for batch in drawn if _rows_of(batch) == batch_size]
    if not whole:
        return None
    arrays = keras.tree.map_structure(lambda *parts: tf.concat(parts, 0), *whole, none_is_leaf=False)
    order = Order(num_examples=len(whole) * batch_size, batch_size=batch_size, seed=0, shuffle=False)
    return RowsOfBatches(arrays, order)


def gather(arrays: Arrays, numbers: Tensor) -> Arrays:
    """The batch `(x, y, sample_weight)` of rows `[batch]` of arrays."""
    batch: Arrays = keras.tree.map_structure(lambda array: tf.gather(array, numbers), arrays, none_is_leaf=False)
    return batch


def _rows_of(batch: Batch) -> int:
    return int(next(tensor for tensor in keras.tree.flatten(batch) if tensor is not None).shape[0])
