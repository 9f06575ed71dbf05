"""An update inside a function that XLA compiles: one pass over each variable, made or not made without a branch."""

from typing import Any

from tfmb.backend import tf, xla
from tfmb.optimizers import transforms
from tfmb.types import Slots, Tensor, Variable

__all__ = ["average_on", "chosen", "move", "settle"]


def chosen(made: Any, new: Slots, old: Slots) -> Slots:
    """The new values where `made`, a scalar bool tensor, else the old ones."""
    return tuple(tf.where(made, a, b) for a, b in zip(new, old, strict=True))


def settle(made: Any, new: Slots, old: Slots) -> Slots:
    """The values that are `chosen`, written before anything is made of them; the new ones if `made` is None.

    XLA would else work new slots out a second time for the weights, from the old ones, which it must copy for that.
    """
    if made is None or not new:
        return new
    return tuple(xla.optimization_barrier(*chosen(made, new, old)))


def move(variable: Variable, delta: Any, made: Any) -> None:
    """Adds to a variable, where `made`; always if that is None."""
    if made is None:
        variable.assign_add(delta)
    else:
        weight = tf.convert_to_tensor(variable)
        variable.assign(*settle(made, (weight + delta,), (weight,)))


def average_on(
    average: Any, variable: Variable, momentum: float, overwrite_every: int | None, count: Tensor, made: Any
) -> None:
    """Brings the average of a variable on, and puts it in the variable's place when that is due.

    Args:
        average: a variable.
        variable: the weight, after the update.
        momentum: as in `transforms.ema`.
        overwrite_every: updates between two replacements; None for none.
        count: as in `transforms.ema`.
        made: whether the update was made, a scalar bool tensor; None if it is made in any case.
    """
    before, weight = tf.convert_to_tensor(average), tf.convert_to_tensor(variable)
    (mean,) = settle(made, (transforms.ema(before, weight, momentum, count),), (before,))
    average.assign(mean)
    if overwrite_every is not None:
        due = tf.equal(tf.math.floormod(count, overwrite_every), 0)
        due = due if made is None else tf.logical_and(due, made)
        variable.assign(tf.where(due, mean, weight))
