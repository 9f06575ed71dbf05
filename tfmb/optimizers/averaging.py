"""The exponential moving average of weights (Polyak and Juditsky 1992), updated with every update."""

from typing import Any

from tfmb.backend import tf
from tfmb.optimizers import one_pass
from tfmb.types import Tensor, Variable

__all__ = ["ema", "update"]


def ema(average: Any, weight: Tensor, momentum: float, count: Tensor) -> Any:
    """average <- momentum average + (1 - momentum) weight; the first one is the weight itself, as in Keras.

    Args:
        average: so far.
        weight: after the update.
        momentum: in [0, 1].
        count: the number of the update from 1, a float64 scalar.
    """
    return tf.where(count > 1, momentum * average + (1.0 - momentum) * weight, weight)


def update(
    average: Any, variable: Variable, momentum: float, overwrite_every: int | None, count: Tensor, made: Any
) -> None:
    """Brings the average of a variable on, and puts it in the variable's place when that is due.

    Args:
        average: a variable.
        variable: the weight, after the update.
        momentum: as in `ema`.
        overwrite_every: updates between two replacements; None for none.
        count: as in `ema`.
        made: whether the update was made, a scalar bool tensor; None if it is made in any case.
    """
    before, weight = tf.convert_to_tensor(average), tf.convert_to_tensor(variable)
    (mean,) = one_pass.settle(made, (ema(before, weight, momentum, count),), (before,))
    average.assign(mean)
    if overwrite_every is not None:
        due = tf.equal(tf.math.floormod(count, overwrite_every), 0)
        due = due if made is None else tf.logical_and(due, made)
        variable.assign(tf.where(due, mean, weight))
