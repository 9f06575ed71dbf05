"""An optimizer of ours and the Keras optimizer that must make the same updates."""

from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.optimizers import Adam, Optimizer
from tfmb.optimizers.foreign import ForeignOptimizer
from tfmb.optimizers.hyper_parameters import AROUND
from tfmb.optimizers.in_keras import as_keras
from tfmb.optimizers.interop import SHARED
from tfmb.optimizers.keras_config import copy_of

__all__ = ["apply_dense_gradients", "in_32_bits", "keras_counterpart"]

_NUMBERS = ("momentum", "rho", "beta_1", "beta_2", "epsilon", "weight_decay", "ema_momentum")
_KERAS = {ours: (theirs, names) for theirs, (ours, names) in SHARED.items()}


def in_32_bits(optimizer: Optimizer) -> None:
    """Rounds hyper-parameters to what 32 bits hold, as Keras does whatever the weights' precision."""
    for name in _NUMBERS:
        value = getattr(optimizer, name, None)
        if isinstance(value, float):
            setattr(optimizer, name, float(np.float32(value)))
    if isinstance(optimizer.learning_rate, float) and not isinstance(optimizer, ForeignOptimizer):
        optimizer.learning_rate = float(np.float32(optimizer.learning_rate))


def keras_counterpart(optimizer: Optimizer) -> tuple[Any, str]:
    """A Keras optimizer that makes the updates of ours, and what it is.

    Args:
        optimizer: not built yet.

    Returns:
        Keras's own class with the same hyper-parameters; where Keras has not this form of the rule, our rule inside
        Keras (`as_keras`).
    """
    if isinstance(optimizer, ForeignOptimizer):
        theirs = optimizer.keras_optimizer
        return copy_of(theirs), f"Keras's own {type(theirs).__name__}"
    if not _is_keras_form(optimizer):
        return as_keras(optimizer), f"our {type(optimizer).__name__} in Keras"
    made, names = _KERAS[type(optimizer)]
    config = {name: getattr(optimizer, name) for name in (*names, *AROUND)}
    rate = optimizer.learning_rate
    theirs = made(learning_rate=rate if isinstance(rate, float) else _Wide(rate), **config)
    if optimizer.weight_decay and optimizer.not_decayed[1]:
        theirs.exclude_from_weight_decay(var_names=optimizer.not_decayed[1])
    return theirs, f"Keras's own {made.__name__}"


def apply_dense_gradients(theirs: Any) -> None:
    """Has a Keras optimizer add up the repeated rows of sparse gradients first.

    Keras 3.15 squares and clips them apart, where the gradient of an embedding is their sum.
    """
    apply = theirs.apply

    def apply_dense(grads: Any, trainable_variables: Any = None) -> None:
        apply([None if g is None else tf.convert_to_tensor(g) for g in grads], trainable_variables)

    theirs.apply = apply_dense


def _is_keras_form(optimizer: Optimizer) -> bool:
    """Whether Keras has this form of the rule: its epsilon and its place of the rate, where these make a difference."""
    if isinstance(optimizer, Adam):
        return optimizer.epsilon_hat
    momentum, inside = getattr(optimizer, "momentum", 0.0), getattr(optimizer, "rate_in_velocity", True)
    return not momentum or inside or isinstance(optimizer.learning_rate, float)


class _Wide(keras.optimizers.schedules.LearningRateSchedule):
    """One of our schedules in Keras, in 64 bits."""

    def __init__(self, schedule: Any) -> None:
        self._schedule = schedule

    def __call__(self, step: Any) -> Any:
        """The rate of the next update, float64."""
        return tf.cast(self._schedule(step), tf.float64)

    def get_config(self) -> dict[str, Any]:
        """Returns an empty configuration: it is never saved."""
        return {}
