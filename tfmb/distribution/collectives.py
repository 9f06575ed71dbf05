"""The exchange between replicas: the sum of their tensors, or all of them one below the other.

`tf.distribute` registers a gradient for every `all_reduce` and `all_gather` that is traced. TensorFlow keeps it, and
the whole graph around it, as long as the process lives. Nobody asks for gradients through ours. So where a reduction
copies all to one device and adds there, we make the calls that those two are made of, which keep nothing.
For collectives TensorFlow offers no such call.
"""

from collections.abc import Sequence
from typing import Any

from tfmb.backend import tf
from tfmb.distribution.strategy import adds_up_on_one_device
from tfmb.types import Strategy, Tensor

__all__ = ["gather", "sum_up"]


def sum_up(tensors: Sequence[Any]) -> list[Any]:
    """The sums of tensors over all replicas, in the replica context; the same bits on each of them."""
    replica = tf.distribute.get_replica_context()
    if not adds_up_on_one_device(replica.strategy):
        return list(replica.all_reduce("sum", list(tensors)))

    def add(strategy: Strategy, *values: Any) -> Any:
        return strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, [(value, value) for value in values])

    return list(replica.merge_call(add, args=tuple(tensors)))


def gather(tensor: Tensor) -> Any:
    """A tensor `[rows, ...]` of each replica as one `[replicas * rows, ...]`, in the replica context."""
    replica = tf.distribute.get_replica_context()
    if not adds_up_on_one_device(replica.strategy):
        return replica.all_gather(tensor, axis=0)
    return replica.merge_call(
        lambda strategy, value: tf.concat(strategy.experimental_local_results(value), 0), args=(tensor,)
    )
