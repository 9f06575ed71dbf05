"""The exponential moving average of weights (Polyak and Juditsky 1992), updated with every update."""

from typing import Any

from tfmb.backend import tf

__all__ = ["ema"]


def ema(average: Any, weight: Any, momentum: float, count: Any) -> Any:
    """average <- momentum average + (1 - momentum) weight; the first one is the weight itself, as in Keras.

    Args:
        average: so far.
        weight: after the update.
        momentum: in [0, 1].
        count: the number of the update from 1, a float64 scalar.
    """
    return tf.where(count > 1, momentum * average + (1.0 - momentum) * weight, weight)
