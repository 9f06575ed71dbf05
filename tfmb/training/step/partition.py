"""A batch cut into fixed parts, and the fixed binary tree in which what the parts gave is added up.

`virtual_replicas=V` cuts every batch of n rows into V contiguous parts (`data.batches.part_bounds`), whatever the
number of devices R. Each device works through its own V / R parts and adds them up in its own subtree; the R sums
are gathered and every device finishes the tree alike. No sum depends on R, so no bit does.
Grappler's arithmetic optimisation must be off (`Steps` sees to it): it gathers additions into others of another order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfmb.backend import keras, tf
from tfmb.choices import check_counts
from tfmb.errors import ConfigError
from tfmb.types import Batch, Tensor

__all__ = [
    "Partition",
    "add_in_tree",
    "check_dense",
    "make_partition",
    "only_reads",
    "over_own_parts",
    "rows_of_part",
    "static_rows",
    "whole_batch",
]

# Parts that a device may have in work at a time.
_OVERLAPPING = 2


@dataclass(frozen=True, kw_only=True)
class Partition:
    """The cut of a batch into parts.

    Attributes:
        replicas: R, the number of devices.
        virtual_replicas: V, a multiple of R. `None` is one part a device, added up by whatever collective is fastest:
            the answer is then the same, but not to the bit.
        static: whether every part has the same number of rows, filled up if there are fewer, which XLA and TPUs
            compile once.
        one_by_one: whether a device has no more than one of its parts in memory at a time.
    """

    replicas: int
    virtual_replicas: int | None = None
    static: bool = False
    one_by_one: bool = False

    @property
    def microbatches_per_replica(self) -> int:
        """The number of parts of one device."""
        return 1 if self.virtual_replicas is None else self.virtual_replicas // self.replicas

    @property
    def num_microbatches(self) -> int:
        """The number of parts of a batch."""
        return self.replicas * self.microbatches_per_replica


def make_partition(
    replicas: int,
    virtual_replicas: int | str,
    micro_batch_size: int | None,
    batch_size: int | None,
    static: bool = False,
) -> Partition:
    """The cut that a user asks for.

    Args:
        replicas: the number of devices.
        virtual_replicas: a power of two, or `"auto"` for one part a device.
        micro_batch_size: the most rows that a device has in memory at a time; it chooses V. None for no limit.
        batch_size: of a whole batch; None if it is not known.
        static: whether every part has the same number of rows.

    Raises:
        ConfigError: V is no power of two, the devices do not divide it, or both it and the micro-batch are given.
    """
    if virtual_replicas == "auto" and micro_batch_size is None:
        return Partition(replicas=replicas, static=static)
    if micro_batch_size is not None:
        check_counts(micro_batch_size=micro_batch_size)
        if virtual_replicas != "auto":
            raise ConfigError("virtual_replicas and micro_batch_size cannot both be given: each decides the other")
        if batch_size is None:
            raise ConfigError("micro_batch_size needs a known batch size: give virtual_replicas for a dataset")
        least = max(math.ceil(batch_size / micro_batch_size), replicas)
        virtual_replicas = 1 << (least - 1).bit_length()
    check_counts(virtual_replicas=virtual_replicas)
    assert isinstance(virtual_replicas, int)
    if virtual_replicas & (virtual_replicas - 1):
        raise ConfigError(f"virtual_replicas={virtual_replicas} must be a power of two: 1, 2, 4, ...")
    if virtual_replicas % replicas:
        raise ConfigError(
            f"virtual_replicas={virtual_replicas} parts cannot be shared out evenly among {replicas} devices: "
            f"give a number of devices that divides it"
        )
    return Partition(
        replicas=replicas, virtual_replicas=virtual_replicas, static=static, one_by_one=micro_batch_size is not None
    )


def whole_batch(batch: Batch) -> tuple[Any, Any]:
    """Returns `((x, y, sample_weight), number of rows)` of a pipeline's batch; a padded one brings the number."""
    if len(batch) == 4:
        return batch[:3], batch[3]
    return batch, tf.shape(keras.tree.flatten(batch)[0])[0]


def check_dense(batch: Batch) -> None:
    """Refuses a batch, or its element spec, that cannot be cut by rows.

    Raises:
        ConfigError: something in it is no dense tensor.
    """
    for part in keras.tree.flatten(batch):
        if part is None:
            raise ConfigError(
                "a batch with None among its tensors cannot be cut into parts: leave out virtual_replicas, "
                "micro_batch_size and pad_batches, and use one device"
            )
        if not isinstance(part, (tf.Tensor, tf.TensorSpec)):
            kind = type(part).__name__.removesuffix("Spec")
            raise ConfigError(f"a batch of {kind} cannot be cut into parts: make it dense, or leave it whole")


def rows_of_part(batch: Batch, start: Tensor, stop: Any, parts: int, static: bool, padded: bool) -> tuple[Any, Any]:
    """Returns rows `[start, stop)` of a batch, and which of them are there.

    Args:
        batch: `(x, y, sample_weight)`.
        start: int32 scalar.
        stop: int32 scalar.
        parts: the number of parts of the batch.
        static: whether all of them must have the same number of rows.
        padded: whether a part may have to be filled up.

    Returns:
        The rows, and bools `[rows]` where `padded`, else `()`. With `static` those that are not there are copies
        of others, which no sum may count.
    """
    if not static:
        if parts == 1:
            return batch, ()
        # At least one row: TensorFlow 2.21's convolution of no images has a wrong shape on a CPU (oneDNN, float32).
        stop = tf.maximum(stop, start + 1)
        return keras.tree.map_structure(lambda tensor: tensor[start:stop], batch), ()
    size = static_rows(batch)
    most = -(-size // parts)
    numbers = start + tf.range(most)
    if most < size:
        places = tf.minimum(numbers, size - 1)
        batch = keras.tree.map_structure(lambda tensor: tf.gather(tensor, places), batch)
    return batch, numbers < stop if padded else ()


def static_rows(batch: Batch) -> int:
    """The number of rows of a batch whose shape is known.

    Raises:
        ConfigError: it is not known.
    """
    size = keras.tree.flatten(batch)[0].shape[0]
    if size is None:
        raise ConfigError("pad_batches needs batches of a known size: batch the dataset with drop_remainder=True")
    return int(size)


def over_own_parts(
    partition: Partition, replica: Any, work: Callable[[Any], list[Any]], specs: list[Any], overlaps: bool
) -> Any:
    """Works through one device's parts and adds up their results in the device's subtree.

    Args:
        partition: of the batch.
        replica: the device's number, an int32 scalar tensor.
        work: part number -> tensors of `specs`; called once, inside a loop.
        specs: of known shapes.
        overlaps: whether the next part may begin before one has ended. A small part leaves some of a processor idle,
            and no sum depends on when it was ready; but the work must write no variable.

    Returns:
        The sums over the device's parts. No more than `_OVERLAPPING` parts are in memory at a time, or one where
        they do not overlap, and log2(V / R) sums.
    """
    own = partition.microbatches_per_replica
    levels = own.bit_length() - 1
    zeros = tuple(tf.zeros(spec.shape, spec.dtype) for spec in specs)

    def body(index: Any, sums: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        value = tuple(work(replica * own + index))
        for tensor, spec in zip(value, specs, strict=True):
            tensor.set_shape(spec.shape)
        # Binary counting: part `index` completes as many subtrees as its number has trailing ones.
        branches = [lambda ones=ones: _complete(value, sums, ones) for ones in range(levels + 1)]
        return index + 1, tf.switch_case(_trailing_ones(index, levels), branches)

    start = (tf.constant(0), (zeros,) * (levels + 1))
    at_once = _OVERLAPPING if overlaps else 1
    _, sums = tf.while_loop(lambda index, _: index < own, body, start, parallel_iterations=at_once)
    return list(sums[levels])


def only_reads(function: Any) -> bool:
    """Whether a traced function writes nothing; functions that it calls are taken to write if they may."""
    operations = function.graph.get_operations()
    return all(op.type == "ReadVariableOp" or not op.op_def.is_stateful for op in operations)


def add_in_tree(values: list[Any]) -> Any:
    """The sum of a power of two of tensors, added pairwise: (a + b) + (c + d)."""
    while len(values) > 1:
        values = [values[i] + values[i + 1] for i in range(0, len(values), 2)]
    return values[0]


def _complete(value: Any, sums: tuple[Any, ...], ones: int) -> tuple[Any, ...]:
    """Adds the subtrees of `ones` levels to the value and stores the sum one level up."""
    for level in range(ones):
        value = tuple(low + high for low, high in zip(sums[level], value, strict=True))
    return (*sums[:ones], value, *sums[ones + 1 :])


def _trailing_ones(index: Any, most: int) -> Any:
    """Returns the number of lowest bits of a number that are set in a row, `most` at most."""
    count = tf.constant(0)
    for level in range(most, 0, -1):
        mask = (1 << level) - 1
        count = tf.where(tf.equal(tf.bitwise.bitwise_and(index, mask), mask) & (count < level), level, count)
    return count
