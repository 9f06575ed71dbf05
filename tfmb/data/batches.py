"""(seed, epoch, step) -> example indices -> batches.

The order of examples is a pure function of the seed and the epoch: one fair permutation an epoch, each
example exactly once, no shuffle buffer, nothing to save but the number of the next update.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tfmb.backend import keras, tf
from tfmb.data.augment import Augmentation
from tfmb.data.records import Records
from tfmb.data.source import Source
from tfmb.errors import ConfigError
from tfmb.seeds import derive
from tfmb.types import Dataset

__all__ = ["READ_AHEAD", "Order", "batched", "fill_up", "part_bounds", "stream"]

# Batches that are read ahead where nothing is measured: enough to hide the host's hiccups, few enough to be cheap in
# memory.
READ_AHEAD = 8


@dataclass(frozen=True, kw_only=True)
class Order:
    """The examples of each step of each epoch.

    Attributes:
        num_examples: n, at least 1.
        batch_size: examples a batch, the global batch over all replicas; the last one of an epoch holds
            the rest.
        seed: the run's seed.
        shuffle: whether each epoch is a new permutation; otherwise rows come as they are. `"batch"` permutes the rows
            of each batch alone.
    """

    num_examples: int
    batch_size: int
    seed: int
    shuffle: bool | str = True

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches that cover every example once."""
        return math.ceil(self.num_examples / self.batch_size)

    def permutation(self, epoch: Any) -> Any:
        """The order of one epoch, an int64 tensor `[num_examples]`.

        A stateless shuffle keyed by (seed, epoch). The algorithm is pinned: `auto_select` may differ by device.

        Args:
            epoch: the number of the epoch from 0, an int or an int64 scalar tensor.
        """
        rows = tf.range(self.num_examples, dtype=tf.int64)
        if not self.shuffle:
            return rows
        key = tf.stack([tf.constant(derive(self.seed, "order"), tf.int64), tf.cast(epoch, tf.int64)])
        if self.shuffle == "batch":
            places = tf.random.stateless_uniform(tf.shape(rows), key, dtype=tf.float64, alg="philox")
            return tf.argsort(tf.cast(rows // self.batch_size, tf.float64) + places, stable=True)
        return tf.random.experimental.stateless_shuffle(rows, seed=key, alg="philox")

    def indices(self, epoch: int, step: int) -> Any:
        """The examples of one batch, an int64 tensor `[batch]`: a slice of the epoch's permutation."""
        start = step * self.batch_size
        return self.permutation(epoch)[start : start + self.batch_size]

    def dataset(self, first_update: int = 0, table: Callable[[Any], Any] | None = None) -> Any:
        """An endless `tf.data.Dataset` of the index batches of updates `first_update`, `first_update + 1`, ...

        Args:
            first_update: the number of the first one, counted from 0 over all epochs.
            table: epoch -> a tensor with a row for each example, whose rows then come along: `(indices, rows)`.
        """
        first_epoch, first_step = divmod(first_update, self.steps_per_epoch)

        def epoch_batches(epoch: Any) -> Any:
            order = self.permutation(epoch)
            drawn = order if table is None else (order, tf.gather(table(epoch), order))
            rows = tf.data.Dataset.from_tensor_slices(drawn)
            skipped = tf.where(epoch == first_epoch, first_step, 0)
            return rows.batch(self.batch_size).skip(tf.cast(skipped, tf.int64))

        return tf.data.Dataset.counter(start=first_epoch).flat_map(epoch_batches)


def part_bounds(size: Any, part: int, parts: int) -> tuple[Any, Any]:
    """Rows `[start, stop)` of part number `part` when a batch of `size` rows is cut into `parts`.

    The cut depends on (size, parts) alone, and a coarser cut's bounds are among a finer one's where
    `parts` of the one divides that of the other. Parts differ by one row at most; some may be empty.
    """
    return size * part // parts, size * (part + 1) // parts


def fill_up(batches: Dataset, rows: int) -> Any:
    """A dataset whose batches all have `rows` rows: a smaller one is filled up with copies of its last row.

    Args:
        batches: a dataset of tuples of tensors `[at most rows, ...]`.
        rows: the number of rows.

    Returns:
        A dataset of the same tuples, with the number of the rows that are there (int32 scalar) at their end.

    Raises:
        ConfigError: something in the batches is no dense tensor.
    """

    for spec in keras.tree.flatten(batches.element_spec):
        if not isinstance(spec, tf.TensorSpec):
            kind = type(spec).__name__.removesuffix("Spec")
            raise ConfigError(
                f"pad_batches cannot fill up batches with a {kind}: make it dense, or leave pad_batches out"
            )

    def fill(*batch: Any) -> Any:
        size = tf.shape(keras.tree.flatten(batch)[0])[0]
        places = tf.minimum(tf.range(rows), size - 1)
        return (*keras.tree.map_structure(lambda tensor: tf.gather(tensor, places), batch), size)

    return batches.map(fill, num_parallel_calls=2, deterministic=True)


def batched(
    source: Source | Records,
    order: Order,
    first_update: int = 0,
    augmentation: Augmentation | None = None,
    static: bool = False,
    prefetch: int = READ_AHEAD,
) -> Any:
    """An endless `tf.data.Dataset` of the batches of a source, prefetched.

    Args:
        source: examples in memory, or read as they are needed.
        order: the examples of each update.
        first_update: the number of the first update to draw, counted from 0 over all epochs.
        augmentation: changes the images; None leaves them.
        static: whether all batches have one static shape, a last one that is smaller filled up as in `fill_up`.
        prefetch: the number of batches to read ahead.

    Returns:
        A dataset of `(examples, labels, sample_weight)` with the leading axis `[batch]`; `sample_weight` is `()`
        if there is none, lists become tuples. Dtypes are the source's own: uint8 images stay uint8. Where batches
        had to be filled up, their number of rows comes fourth.

    Raises:
        ConfigError: augmentation of anything but images.
    """
    if isinstance(source, Records):
        gather, at_once, axes = source.read, tf.data.AUTOTUNE, _axes(source.element_spec[0])  # reading waits for a disk
    else:
        gather, at_once, axes = _from_memory(source), 2, _axes(source.examples) - 1
    if augmentation is None:
        batches = order.dataset(first_update).map(gather, num_parallel_calls=at_once, deterministic=True)
        return _prefetched(_shaped(batches, order, static), prefetch, at_once)
    if axes != 3:
        raise ConfigError("augmentation needs images: one array of examples [n, height, width, channels]")

    def gather_changed(rows: Any, numbers: Any) -> Any:
        images, labels, weights = gather(rows)
        return augmentation.apply(images, numbers), labels, weights

    drawn = order.dataset(first_update, lambda epoch: augmentation.table(order.seed, epoch, source.size))
    changed = drawn.map(gather_changed, num_parallel_calls=at_once, deterministic=True)
    return _prefetched(_shaped(changed, order, static), prefetch, at_once)


def _prefetched(batches: Dataset, prefetch: int, at_once: int) -> Any:
    """Returns the batches, prefetched. tf.data tunes itself only if something is left for it to choose.

    Its tuner sleeps for up to a minute between two looks, and an iterator that is deleted waits for it.
    """
    options = tf.data.Options()
    options.autotune.enabled = at_once == tf.data.AUTOTUNE
    return (batches.prefetch(prefetch) if prefetch else batches).with_options(options)


def _axes(example: Any) -> int:
    return len(getattr(example, "shape", ()))


def _from_memory(source: Source) -> Callable[[Any], Any]:
    """Returns the function from row numbers to the batch of these rows."""
    # Constants made here are captured by the pipeline; made inside it they would be copied into its graph.
    with tf.device("/cpu:0"):
        arrays = keras.tree.map_structure(tf.constant, source.parts, none_is_leaf=False)
    arrays = keras.tree.lists_to_tuples(arrays)  # tf.data would stack a list into one tensor

    def gather(rows: Any) -> Any:
        return keras.tree.map_structure(lambda array: tf.gather(array, rows), arrays, none_is_leaf=False)

    return gather


def _shaped(batches: Dataset, order: Order, static: bool) -> Any:
    """Returns the batches, with a static shape if that is wanted."""
    if not static:
        return batches
    if order.num_examples % order.batch_size:
        return fill_up(batches, order.batch_size)

    def ensure(*batch: Any) -> Any:
        return keras.tree.map_structure(lambda t: tf.ensure_shape(t, [order.batch_size, *t.shape[1:]]), batch)

    return batches.map(ensure)


def stream(source: Source, order: Order, first_update: int = 0) -> Iterator[Any]:
    """An iterator over `batched(...)`, for use inside a `tf.function`."""
    return iter(batched(source, order, first_update))
