"""Keras optimizers and names -> ours; and the optimizer of a model's last training if the user named the same."""

import weakref
from typing import Any

from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.optimizers.adam import Adam, AdamW
from tfmb.optimizers.foreign import ForeignOptimizer
from tfmb.optimizers.hyper_parameters import AROUND, BY_KERAS
from tfmb.optimizers.in_keras import KerasOptimizer, as_keras
from tfmb.optimizers.keras_config import config_of
from tfmb.optimizers.optimizer import Optimizer
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.optimizers.rmsprop import RMSprop
from tfmb.optimizers.sgd import SGD
from tfmb.types import KerasModel

__all__ = ["OPTIMIZERS", "SHARED", "from_keras", "get", "keras_rate", "optimizer_for", "own_step_for"]

OPTIMIZERS: dict[str, Any] = {
    "sgd": SGD,
    "momentum": lambda **given: SGD(**{"momentum": 0.9, **given}),
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
}

# Keras's arguments that our counterparts have too, by class.
SHARED: dict[type, tuple[type, tuple[str, ...]]] = {
    keras.optimizers.SGD: (SGD, ("momentum", "nesterov")),
    keras.optimizers.RMSprop: (RMSprop, ("rho", "momentum", "epsilon", "centered")),
    keras.optimizers.Adam: (Adam, ("beta_1", "beta_2", "epsilon", "amsgrad")),
    keras.optimizers.AdamW: (AdamW, ("beta_1", "beta_2", "epsilon", "amsgrad")),
}


def get(identifier: Any) -> Optimizer:
    """Returns our optimizer for a name, for a Keras optimizer, or for one of ours (returned unchanged).

    Raises:
        ConfigError: an unknown name, or a Keras optimizer that cannot be used.
    """
    if isinstance(identifier, Optimizer):
        return around_keras(identifier)
    if isinstance(identifier, str):
        if identifier.lower() not in OPTIMIZERS:
            raise ConfigError(f"unknown optimizer {identifier!r}: give one of {', '.join(OPTIMIZERS)}")
        return OPTIMIZERS[identifier.lower()]()
    if isinstance(identifier, keras.optimizers.Optimizer):
        return from_keras(identifier)
    raise ConfigError(f"optimizer={identifier!r} is neither a name nor an optimizer of tfmb.optimizers or Keras")


def around_keras(optimizer: Optimizer) -> Optimizer:
    """Returns the optimizer itself, or its rule in a Keras optimizer if it uses Keras's additions to a rule."""
    if isinstance(optimizer, ForeignOptimizer) or not any(getattr(optimizer, option) for option in BY_KERAS):
        return optimizer
    if optimizer.inside is None:
        optimizer.inside = ForeignOptimizer(as_keras(optimizer))
    return optimizer.inside


def from_keras(optimizer: Any) -> Optimizer:
    """A Keras optimizer for our loop: our counterpart where there is one, else the optimizer itself, adapted.

    Args:
        optimizer: a `keras.optimizers.Optimizer`. Exactly an `SGD`, `RMSprop`, `Adam` or `AdamW` becomes ours: the same
            rule (with Keras's form of momentum), hyper-parameters and state. One that accumulates gradients or scales
            the loss by a fixed factor stays Keras's. Under a `LossScaleOptimizer`, which Keras puts around it for
            float16, the inner one is taken: see `LossScale`.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        made = from_keras(optimizer.inner_optimizer)
        made.scaled_by = optimizer
        return made
    if any(getattr(optimizer, option, None) for option in BY_KERAS):
        return ForeignOptimizer(optimizer)
    if isinstance(optimizer, KerasOptimizer):
        made = optimizer.to_tfmb()
        made.exclude_as_keras(optimizer)
        made.stands_for = optimizer
        return made
    if type(optimizer) not in SHARED or callable(_own_rate(optimizer)):
        return ForeignOptimizer(optimizer)
    ours, shared = SHARED[type(optimizer)]
    arguments = {name: getattr(optimizer, name) for name in (*shared, *AROUND)}
    if ours in (SGD, RMSprop):
        arguments["rate_in_velocity"] = True
    made = ours(learning_rate=keras_rate(optimizer), name=optimizer.name, **arguments)
    made.exclude_as_keras(optimizer)
    made.stands_for, made.rounds_as_keras = optimizer, True
    return made


def _same_settings(a: Any, b: Any) -> bool:
    """Whether two configurations of a Keras optimizer differ in nothing but a rate that is a number."""
    return a == b or _without_rate(a) == _without_rate(b)


def _without_rate(config: dict[str, Any]) -> dict[str, Any]:
    inner = config.get("inner_optimizer")
    if isinstance(inner, dict):
        return {**config, "inner_optimizer": {**inner, "config": _without_rate(inner["config"])}}
    number = isinstance(config.get("learning_rate"), float)
    return {key: value for key, value in config.items() if key != "learning_rate" or not number}


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


# model -> (what the user named, its settings, our optimizer): a second call need not trace anew.
_optimizers: weakref.WeakKeyDictionary[Any, tuple[Any, Any, Optimizer]] = weakref.WeakKeyDictionary()


def optimizer_for(model: KerasModel, identifier: Any) -> Optimizer:
    """Returns our optimizer for the user's: the one of the model's last training if the user named the same.

    Args:
        model: the model that is trained.
        identifier: a name, a Keras optimizer, or one of ours.
    """
    if isinstance(identifier, Optimizer):
        return around_keras(identifier)
    settings = config_of(identifier) if isinstance(identifier, keras.optimizers.Optimizer) else None
    known, as_it_was, optimizer = _optimizers.get(model, (None, None, None))
    same = known == identifier if isinstance(identifier, str) else known is identifier
    if same and settings is not None:
        same = _same_settings(settings, as_it_was)
    if optimizer is None or not same:
        optimizer = get(identifier)
        _optimizers[model] = (identifier, settings, optimizer)
    return optimizer


def own_step_for(model: KerasModel) -> OwnStepOptimizer:
    """Returns the step counter of a model with its own step: the last training's, which goes on counting."""
    known = _optimizers.get(model, (None, None, None))[2]
    if not isinstance(known, OwnStepOptimizer):
        known = OwnStepOptimizer(model)
        _optimizers[model] = (None, None, known)
    return known
