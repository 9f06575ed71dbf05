"""Matrix products alone, as many operations as an epoch of the model has: the pace that a loop could reach at most."""

from collections.abc import Callable

from benchmarks.limit import FLOPS_AN_EXAMPLE
from benchmarks.peers import Work

_SIZE = 2048


def make(work: Work) -> Callable[[], None]:
    """See `benchmarks.peers`."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.normal((_SIZE, _SIZE)), work.precision)
    product = tf.function(lambda: tf.matmul(matrix, matrix), autograph=False)

    def epoch() -> None:
        for _ in range(products_of(work)):
            product()

    return epoch


def products_of(work: Work) -> int:
    """How many products come closest to the operations of an epoch; at least one."""
    return max(1, round(operations_of(work) / (2 * _SIZE**3)))


def operations_of(work: Work) -> float:
    """The useful floating-point operations of an epoch of the model."""
    return float(FLOPS_AN_EXAMPLE[work.model] * work.batch_size * work.updates)


def share(work: Work) -> float:
    """The operations of an epoch of the model over those of the products that stand for it."""
    return operations_of(work) / (products_of(work) * 2 * _SIZE**3)
