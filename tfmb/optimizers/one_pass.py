"""An update inside a function that XLA compiles: one pass over each variable, made or not made without a branch."""

from typing import Any

from tfmb.backend import tf, xla
from tfmb.types import Slots, Variable

__all__ = ["chosen", "move", "settle"]


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
