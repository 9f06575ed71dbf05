"""Batches of arrays, or of examples read by their number, in our order.

Where arrays are on the device already only the numbers of their rows travel, many batches at a time.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmb.backend import keras, tf
from tfmb.data.augment import Augmentation
from tfmb.data.batches import READ_AHEAD, Order, batched
from tfmb.data.records import Records, telling_what_cannot_be_read
from tfmb.data.source import Source
from tfmb.training.input.first_inputs import FirstInputs
from tfmb.training.input.pipeline import EpochBatches, InputPipeline, ran_out
from tfmb.types import Batch, Dataset, Tensor

__all__ = ["ArrayPipeline", "Arrays", "Rows", "RowsOfBatches", "arrays_on_device", "first_batches", "gather", "spec_of"]

# Batches in one block of row numbers, and the most numbers that one may have.
_MOST_BATCHES, _MOST_NUMBERS = 100, 1 << 20
# Batches that a trial makes its updates of where it cannot have all.
_TRIED = 8
# A pipeline is timed from so many batches before the end of an epoch on.
_BEFORE_THE_END = 8

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


class ArrayPipeline(InputPipeline):
    """Batches of a source in the order of `Order`.

    Args:
        source: the examples, in memory or read as they are needed.
        order: which of them each update takes.
        steps_per_epoch: None for one pass over the data; otherwise an epoch is that many updates, and as in Keras
            the next one goes on where it stopped and the pass's last epoch may be shorter.
        initial_epoch: the number of the first epoch that will be asked for.
        augmentation: changes the images of the epochs; None leaves them.
    """

    def __init__(
        self,
        source: Source | Records,
        order: Order,
        steps_per_epoch: int | None = None,
        initial_epoch: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.prefetch = READ_AHEAD
        self._augmentation = augmentation
        self._source = source
        self._order = order
        self.batch_size: int | None = order.batch_size
        self._steps_per_epoch = steps_per_epoch
        self.steps: int | None = steps_per_epoch or order.steps_per_epoch
        self._unshuffled: Any = None
        self._arrays: Arrays | None = None
        self._iterator: Any = None
        self._update = self._skipped = self._first_epoch = 0
        self.begin_at(initial_epoch)

    def first_inputs(self) -> FirstInputs:
        """See `InputPipeline`."""
        return FirstInputs(spec=lambda: self.spec()[0], read=self._first_row)

    def _first_row(self) -> Any:
        if isinstance(self._source, Records):
            return self._source.read(tf.zeros([1], tf.int64))[0]
        first = keras.tree.map_structure(
            lambda array: tf.constant(array[:1]), self._source.examples, none_is_leaf=False
        )
        return keras.tree.lists_to_tuples(first)

    def spec(self) -> Any:
        """See `InputPipeline`."""
        if isinstance(self._source, Records):
            return self._batched(0, 0).element_spec
        return keras.tree.lists_to_tuples(spec_of(self._source.parts))

    def begin_at(self, epoch: int) -> None:
        """Rows that are not shuffled have the order of their own, and begin with the first, as in Keras."""
        if self._steps_per_epoch is not None and not self._order.shuffle:
            self._first_epoch = epoch
        self.start_at(epoch, 0)

    def epoch(self, epoch: int) -> EpochBatches:
        """The batches of an epoch: one endless source of them serves all."""
        del epoch
        if self._iterator is None:
            first = self._update + self._skipped
            self._iterator = self.rows_of_batches(first) if self.on_device else None
            if self._iterator is None:
                self._iterator = iter(self._batched(first, self.prefetch))
        steps = self._next_steps()
        if self._steps_per_epoch is not None and steps < self._steps_per_epoch:
            warnings.warn(ran_out(steps, self._steps_per_epoch), stacklevel=2)
        self._update += steps
        return EpochBatches(self._iterator, steps)

    def start_at(self, epoch: int, step: int, between: Sequence[Callable[[], None]] | None = None) -> None:
        """See `InputPipeline`: the order is a function of the number of the batch, so nothing is drawn in vain."""
        self._iterator = None
        self._update, self._skipped = 0, step
        for _ in range(self._first_epoch, epoch):
            self._update += self._next_steps()

    def once(self) -> EpochBatches:
        """All examples once, unshuffled."""
        steps = min(self._steps_per_epoch or self._order.steps_per_epoch, self._order.steps_per_epoch)
        if self._unshuffled is None:
            order = Order(
                num_examples=self._order.num_examples, batch_size=self._order.batch_size, seed=0, shuffle=False
            )
            self._unshuffled = batched(self._source, order, static=self.static).take(steps)
        return EpochBatches(iter(self._unshuffled), steps)

    def rows_of_batches(self, first_update: int = 0) -> RowsOfBatches | None:
        """See `InputPipeline`."""
        if not self._lie_on_device or isinstance(self._source, Records):
            return None
        if self._arrays is None:
            self._arrays = arrays_on_device(self._source)
        return RowsOfBatches(self._arrays, self._order, first_update)

    def for_trial(self) -> RowsOfBatches | None:
        """See `InputPipeline`."""
        if self._lie_on_device:
            return self.rows_of_batches()
        with telling_what_cannot_be_read():
            return first_batches(self._batched(0, 0), self._order.batch_size, _TRIED)

    def unread(self) -> Any:
        """See `InputPipeline`."""
        return self._batched(max(self._order.steps_per_epoch - _BEFORE_THE_END, 0), 0)

    def facts(self) -> dict[str, Any] | None:
        """See `InputPipeline`."""
        source = self._source
        if isinstance(source, Records) and not source.dense:
            return None
        if isinstance(source, Records):
            kind = str(source.element_spec)
        else:
            arrays = keras.tree.flatten([source.examples, source.labels, source.sample_weight])
            kind = " ".join("none" if a is None else f"{a.dtype}{list(a.shape[1:])}" for a in arrays)
        return {
            "batch_size": self._order.batch_size,
            "examples": kind,
            "records": isinstance(source, Records),
            "augmentation": repr(self._augmentation),
            "static": self.static,
            "on_device": self.on_device and self._lie_on_device,
        }

    @property
    def _lie_on_device(self) -> bool:
        return not (self.static or self._augmentation is not None or isinstance(self._source, Records))

    def _batched(self, first: int, prefetch: int) -> Any:
        return batched(self._source, self._order, first, self._augmentation, self.static, prefetch)

    def _next_steps(self) -> int:
        left = self._order.steps_per_epoch - self._update % self._order.steps_per_epoch
        return left if self._steps_per_epoch is None else min(left, self._steps_per_epoch)
