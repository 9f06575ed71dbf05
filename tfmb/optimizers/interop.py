"""Keras optimizers and names -> ours."""

from collections.abc import Sequence
from typing import Any

from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.optimizers.adam import Adam, AdamW
from tfmb.optimizers.foreign import ForeignOptimizer
from tfmb.optimizers.in_keras import KerasOptimizer
from tfmb.optimizers.optimizer import Optimizer, value_of
from tfmb.optimizers.rmsprop import RMSprop
from tfmb.optimizers.sgd import SGD

__all__ = ["OPTIMIZERS", "from_keras", "get", "give_state"]

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
# What a Keras optimizer can do besides its rule that the loop does otherwise, and how.
_UNSUPPORTED = {
    "loss_scale_factor": "the loop scales the loss itself where float16 needs it",
    "gradient_accumulation_steps": "give micro_batch_size",
}
_COMMON = ("clipnorm", "clipvalue", "global_clipnorm", "use_ema", "ema_momentum", "ema_overwrite_frequency")


def get(identifier: Any) -> Optimizer:
    """Our optimizer of a name, a Keras optimizer, or one of ours (returned as it is).

    Raises:
        ConfigError: an unknown name, or a Keras optimizer that cannot be used.
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
    """A Keras optimizer for our loop: our counterpart where there is one, else the optimizer itself, adapted.

    Args:
        optimizer: a `keras.optimizers.Optimizer`. Exactly an `SGD`, `RMSprop`, `Adam` or `AdamW` becomes ours: the same
            rule (with Keras's form of momentum) and hyper-parameters, and no state. Under a `LossScaleOptimizer`, which
            Keras puts around it for float16, the inner one is taken: the loop has a loss scale of its own.

    Raises:
        ConfigError: one that accumulates gradients or scales the loss by a fixed factor.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    for option in _UNSUPPORTED:
        if getattr(optimizer, option, None):
            raise ConfigError(f"{option} of {type(optimizer).__name__} is not supported: {_UNSUPPORTED[option]}")
    if isinstance(optimizer, KerasOptimizer):
        return optimizer.to_tfmb()
    if type(optimizer) not in _SHARED or callable(_own_rate(optimizer)):
        return ForeignOptimizer(optimizer)
    ours, shared = _SHARED[type(optimizer)]
    arguments = {name: getattr(optimizer, name) for name in (*shared, *_COMMON)}
    if ours in (SGD, RMSprop):
        arguments["rate_in_velocity"] = True
    made = ours(
        learning_rate=keras_rate(optimizer), weight_decay=optimizer.weight_decay, name=optimizer.name, **arguments
    )
    made.exclude_as_keras(optimizer)
    return made


def give_state(ours: Optimizer, theirs: Any, variables: Sequence[Any]) -> None:
    """Builds a Keras optimizer and gives it the state of ours, so that what Keras saves with a model can go on.

    Args:
        ours: the counterpart that `from_keras` made of it.
        theirs: exactly a Keras SGD, RMSprop, Adam or AdamW; anything else is left alone.
        variables: the model's trainable Keras variables.
    """
    if isinstance(theirs, keras.optimizers.LossScaleOptimizer):
        theirs = theirs.inner_optimizer
    if type(theirs) not in _SHARED or not isinstance(ours, _SHARED[type(theirs)][0]):
        return
    if not theirs.built:
        theirs.build(list(variables))
    for name, slots in _keras_slots(theirs).items():
        if name in ours.slot_names:
            place, sign = ours.slot_names.index(name), -1.0 if isinstance(ours, SGD) else 1.0
            for slot, own in zip(slots, ours.slots, strict=True):
                slot.assign(sign * value_of(own[place]))


def _keras_slots(optimizer: Any) -> dict[str, Any]:
    """Keras's slot variables by the names that ours have."""
    if isinstance(optimizer, keras.optimizers.Adam):
        hats = getattr(optimizer, "_velocity_hats", [])
        return {"m": optimizer._momentums, "v": optimizer._velocities, "v_largest": hats}
    if isinstance(optimizer, keras.optimizers.RMSprop):
        momenta, means = getattr(optimizer, "_momentums", []), getattr(optimizer, "_average_gradients", [])
        return {"mean_square": optimizer._velocities, "velocity": momenta, "mean_gradient": means}
    return {"velocity": getattr(optimizer, "momentums", [])}


def _own_rate(optimizer: Any) -> Any:
    """The rate if it is a plain function, which only Keras can call."""
    rate = optimizer._learning_rate
    schedule = isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
    return None if schedule or isinstance(rate, keras.Variable) else rate


def keras_rate(optimizer: Any) -> Any:
    """The learning rate of a Keras optimizer: its schedule, or the float it stands at."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return rate
    return float(str(keras.ops.convert_to_numpy(rate)))
