"""Keras optimizers and names -> ours."""

from typing import Any

from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.optimizers.adam import Adam, AdamW
from tfmb.optimizers.optimizer import Optimizer
from tfmb.optimizers.rmsprop import RMSprop
from tfmb.optimizers.sgd import SGD

__all__ = ["OPTIMIZERS", "from_keras", "get"]

OPTIMIZERS: dict[str, Any] = {
    "sgd": SGD,
    "momentum": lambda **given: SGD(**{"momentum": 0.9, **given}),
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
}

# Keras's arguments that our counterparts have too, by class.
_SHARED: dict[type, tuple[type, tuple[str, ...]]] = {
    keras.optimizers.SGD: (SGD, ("momentum", "nesterov")),
    keras.optimizers.RMSprop: (RMSprop, ("rho", "momentum", "epsilon", "centered")),
    keras.optimizers.Adam: (Adam, ("beta_1", "beta_2", "epsilon", "amsgrad")),
    keras.optimizers.AdamW: (AdamW, ("beta_1", "beta_2", "epsilon", "amsgrad")),
}
# What every Keras optimizer can do besides its rule, and the value that means "not asked for".
_UNSUPPORTED = {
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}


def get(identifier: Any) -> Optimizer:
    """Our optimizer of a name, a Keras optimizer, or one of ours (returned as it is).

    Raises:
        ConfigError: an unknown name, or a Keras optimizer without a counterpart here.
    """
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, str):
        if identifier.lower() not in OPTIMIZERS:
            raise ConfigError(f"unknown optimizer {identifier!r}: give one of {', '.join(OPTIMIZERS)}")
        return OPTIMIZERS[identifier.lower()]()
    if isinstance(identifier, keras.optimizers.Optimizer):
        return from_keras(identifier)
    raise ConfigError(f"optimizer={identifier!r} is neither a name nor an optimizer of tfmb.optimizers or Keras")


def from_keras(optimizer: Any) -> Optimizer:
    """Our counterpart of a Keras optimizer: the same rule with the same hyper-parameters, and no state.

    Args:
        optimizer: exactly a `keras.optimizers.SGD`, `RMSprop`, `Adam` or `AdamW`.

    Returns:
        Ours, with Keras's form of momentum.

    Raises:
        ConfigError: another optimizer, or one that clips, averages, scales or accumulates.
    """
    if type(optimizer) not in _SHARED:
        raise ConfigError(
            f"keras.optimizers.{type(optimizer).__name__} has no counterpart here yet: "
            "compile with SGD, RMSprop, Adam or AdamW"
        )
    for option, absent in _UNSUPPORTED.items():
        if getattr(optimizer, option, absent) not in (absent, False):
            raise ConfigError(f"{option} of {type(optimizer).__name__} is not supported yet: leave it out")
    if getattr(optimizer, "_exclude_from_weight_decay", None) or getattr(
        optimizer, "_exclude_from_weight_decay_pattern", None
    ):
        raise ConfigError("exclude_from_weight_decay is not supported yet: leave it out")
    ours, shared = _SHARED[type(optimizer)]
    arguments = {name: getattr(optimizer, name) for name in shared}
    if ours in (SGD, RMSprop):
        arguments["rate_in_velocity"] = True
    return ours(
        learning_rate=keras_rate(optimizer), weight_decay=optimizer.weight_decay, name=optimizer.name, **arguments
    )


def keras_rate(optimizer: Any) -> Any:
    """The learning rate of a Keras optimizer: its schedule, or the float it stands at."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return rate
    if callable(rate) and not isinstance(rate, keras.Variable):
        raise ConfigError("a learning rate given as a function is not supported yet: give a LearningRateSchedule")
    return float(str(keras.ops.convert_to_numpy(rate)))
