"""The transforms around a rule, pure: mean gradients are clipped, weights decay and are averaged."""

from collections.abc import Sequence
from typing import Any

from tfmb.backend import tf
from tfmb.optimizers.sparse import dense, limited, scaled, square_sum, values_of
from tfmb.types import Tensor

__all__ = ["clip", "clip_by_global_norm", "clip_by_norm", "clip_by_value", "decay", "ema", "global_norm"]

Gradients = Sequence[Any]


def global_norm(gradients: Gradients) -> Any:
    """The root of the sum of squares over all gradients, a scalar; None entries count nothing."""
    return tf.sqrt(tf.add_n([square_sum(g) for g in gradients if g is not None]))


def clip_by_global_norm(gradients: Gradients, norm: float) -> tuple[list[Any], Any]:
    """All gradients times min(1, norm / global norm): Keras's `global_clipnorm` (Pascanu et al. 2013).

    Returns:
        The gradients, equal rows added up as Keras's product does, and whether they were changed.
    """
    clipped, over = _shortened(gradients, norm)
    return [None if g is None else dense(g) for g in clipped], over


def _shortened(gradients: Gradients, norm: float) -> tuple[list[Any], Any]:
    length = global_norm(gradients)
    over = length > norm
    # Untouched, to the bit, where nothing is to be clipped.
    factor = tf.where(over, norm / length, tf.ones_like(length))
    return [None if g is None else scaled(g, factor) for g in gradients], over


def clip_by_norm(gradients: Gradients, norm: float) -> tuple[list[Any], Any]:
    """Each gradient times min(1, norm / its own norm): Keras's `clipnorm`."""
    clipped = [None if g is None else _shortened([g], norm) for g in gradients]
    return [None if c is None else c[0][0] for c in clipped], _any(c[1] for c in clipped if c is not None)


def clip_by_value(gradients: Gradients, value: float) -> tuple[list[Any], Any]:
    """Cuts each entry to [-value, value]: Keras's `clipvalue`."""
    over = _any(tf.reduce_any(tf.abs(values_of(g)) > value) for g in gradients if g is not None)
    return [None if g is None else limited(g, value) for g in gradients], over


def clip(
    gradients: Gradients, norm: float | None, value: float | None, global_norm: float | None
) -> tuple[Gradients, Any]:
    """Returns the gradients, limited by the one of the three that is not None, and whether that changed them."""
    if global_norm is not None:
        return clip_by_global_norm(gradients, global_norm)
    if norm is not None:
        return clip_by_norm(gradients, norm)
    if value is not None:
        return clip_by_value(gradients, value)
    return gradients, tf.constant(False)


def decay(delta: Any, weight: Tensor, rate: Tensor, factor: Any) -> Any:
    """Decoupled weight decay (Loshchilov and Hutter 2019): delta - alpha lambda theta.

    Args:
        delta: the rule's move of the weight.
        weight: theta, before the update.
        rate: alpha.
        factor: lambda.
    """
    return delta - rate * factor * weight


def ema(average: Any, weight: Tensor, momentum: float, count: Tensor) -> Any:
    """The moving average of a weight (Polyak and Juditsky 1992); the first one is the weight itself, as in Keras.

    average <- momentum average + (1 - momentum) weight.

    Args:
        average: so far.
        weight: after the update.
        momentum: in [0, 1].
        count: the number of the update from 1, a float64 scalar.
    """
    return tf.where(count > 1, momentum * average + (1.0 - momentum) * weight, weight)


def _any(conditions: Any) -> Any:
    return tf.reduce_any(tf.stack(list(conditions)))
