"""Our rules inside `keras.Model.compile`: an optimizer that Keras can use, save and load."""

import json
from typing import Any

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers import schedules
from tfmb.optimizers.adam import Adam, AdamW
from tfmb.optimizers.hyper_parameters import AROUND, BY_KERAS
from tfmb.optimizers.optimizer import Optimizer
from tfmb.optimizers.rmsprop import RMSprop
from tfmb.optimizers.sgd import SGD
from tfmb.types import Tensor, Variable

__all__ = ["KerasOptimizer", "as_keras"]

_CLASSES: dict[str, type[Optimizer]] = {cls.__name__: cls for cls in (SGD, RMSprop, Adam, AdamW)}
_KERAS_OWN = (*AROUND, *BY_KERAS)
# Under which the settings have one of Keras's own schedules.
_OF_KERAS = "of_keras"


def as_keras(optimizer: Optimizer) -> Any:
    """Wraps one of our optimizers for `keras.Model.compile`.

    Clipping, averaging and weight decay are then done by Keras around our rule, with the same meaning on one device.

    Args:
        optimizer: not built yet.

    Returns:
        A `keras.optimizers.Optimizer`; it is saved and loaded with the model (tfmb must be imported to load it).

    Raises:
        ConfigError: it is none of ours, or was used already.

    Example:
        >>> model.compile(tfmb.optimizers.as_keras(tfmb.optimizers.Adam(1e-3)), "mse")
    """
    if type(optimizer).__name__ not in _CLASSES:
        raise ConfigError(f"as_keras takes one of {', '.join(_CLASSES)}, not {type(optimizer).__name__}")
    if optimizer.iterations is not None:
        raise ConfigError(f"{optimizer.name} was used already: give as_keras a new optimizer")
    rule, settings, given = type(optimizer).__name__, optimizer.get_config(), {}
    kind: Any = _CLASSES[rule]
    if optimizer.name == kind().name:
        settings.pop("name")  # Keras numbers those that nobody named
    rate = optimizer.learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        settings["learning_rate"] = {_OF_KERAS: keras.saving.serialize_keras_object(rate)}
    elif not isinstance(rate, (float, schedules.Schedule)):
        settings["learning_rate"], given["rate"] = 0.0, rate
    made = _IN_KERAS[rule](rule, settings, **given)
    excluded, names = optimizer.not_decayed
    if excluded or names:
        made.exclude_from_weight_decay(excluded, names)
    return made


@keras.saving.register_keras_serializable(package="tfmb")
class KerasOptimizer(keras.optimizers.Optimizer):
    """The rule of one of our optimizers as a Keras optimizer, made by `as_keras`.

    Args:
        rule: the class's name in `tfmb.optimizers`.
        settings: its arguments by name.
        rate: a function that gives the learning rate, in place of the one in the settings; None for none. It is not
            saved.
        **kwargs: the arguments that Keras adds when it loads one.

    Raises:
        ConfigError: no such class.
    """

    def __init__(self, rule: str, settings: dict[str, Any], rate: Tensor = None, **kwargs: Any) -> None:
        if rule not in _CLASSES:
            raise ConfigError(f"rule={rule!r} must be one of {', '.join(_CLASSES)}")
        options = {name: settings[name] for name in _KERAS_OWN if settings.get(name) is not None}
        options["name"] = settings.get("name")
        super().__init__(learning_rate=_rate(settings["learning_rate"], rate), **{**options, **kwargs})
        self._tfmb_rule, self._tfmb_settings = rule, json.dumps(settings)  # text: Keras would track a dict
        own = {key: value for key, value in settings.items() if key not in _KERAS_OWN}
        own["learning_rate"] = 0.0
        self._ours = _CLASSES[rule](**own)

    def build(self, variables: Any) -> None:
        """Makes the rule's slots."""
        if self.built:
            return
        super().build(variables)
        self._slots = [
            [self.add_variable_from_reference(variable, name) for name in self._ours.slot_names]
            for variable in variables
        ]

    @property
    def slots_by_name(self) -> dict[str, list[Any]]:
        """The rule's slots: by name one for each variable."""
        return {name: [slots[i] for slots in self._slots] for i, name in enumerate(self._ours.slot_names)}

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Any) -> None:
        """One variable's update by our rule."""
        slots = self._slots[self._get_variable_index(variable)]
        if isinstance(gradient, tf.IndexedSlices) and not slots:  # only the rows that have a gradient
            rate = tf.cast(learning_rate, variable.dtype)
            delta, _ = self._ours.rule(tf.cast(gradient.values, variable.dtype), (), rate, None)
            self.assign_add(variable, tf.IndexedSlices(delta, gradient.indices, gradient.dense_shape))
            return
        rate = tf.cast(learning_rate, variable.dtype)
        count = tf.cast(self.iterations + 1, tf.float64)
        values = tuple(tf.convert_to_tensor(slot) for slot in slots)
        delta, new = self._ours.rule(tf.cast(tf.convert_to_tensor(gradient), variable.dtype), values, rate, count)
        for slot, value in zip(slots, new, strict=True):
            self.assign(slot, value)
        self.assign_add(variable, delta)

    def to_tfmb(self) -> Optimizer:
        """Returns our optimizer anew, with the current rate; it has no state of its own yet."""
        settings = self.get_config()["settings"]
        rate = settings["learning_rate"]
        if isinstance(rate, dict) and _OF_KERAS in rate:
            settings["learning_rate"] = keras.saving.deserialize_keras_object(rate[_OF_KERAS])
        else:
            settings["learning_rate"] = rate if isinstance(rate, float) else schedules.from_config(rate)
        return _CLASSES[self._tfmb_rule](**settings)

    def get_config(self) -> dict[str, Any]:
        """Returns the rule, its settings and the current rate.

        Raises:
            ConfigError: the rate is a function.
        """
        kind = keras.optimizers.schedules.LearningRateSchedule
        if callable(self._learning_rate) and not isinstance(self._learning_rate, kind):
            raise ConfigError(f"{self.name}: a learning rate that is a function cannot be saved: give a schedule")
        rate = super().get_config()["learning_rate"]
        settings = json.loads(self._tfmb_settings)
        if isinstance(settings["learning_rate"], float) and isinstance(rate, float):
            settings["learning_rate"] = rate
        settings["name"] = self.name
        return {"rule": self._tfmb_rule, "settings": settings}


# By rule, so that Keras names and numbers them as it does its own.
_IN_KERAS = {
    name: keras.saving.register_keras_serializable(package="tfmb")(
        type(name, (KerasOptimizer,), {"__doc__": cls.__doc__})
    )
    for name, cls in _CLASSES.items()
}


def _rate(rate: Tensor, function: Any = None) -> Any:
    """Returns a float, a Keras schedule around one of ours, or the given Keras schedule or function."""
    if function is not None:
        return function
    if isinstance(rate, float):
        return rate
    if isinstance(rate, dict) and _OF_KERAS in rate:
        return keras.saving.deserialize_keras_object(rate[_OF_KERAS])
    if isinstance(rate, dict) and "class" in rate:
        return _KerasSchedule(rate)
    raise ConfigError(
        "as_keras takes a learning rate that is a number, a function, a Keras schedule or of tfmb.optimizers.schedules"
    )


@keras.saving.register_keras_serializable(package="tfmb")
class _KerasSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """One of our schedules as Keras's."""

    def __init__(self, schedule: dict[str, Any]) -> None:
        self._config = schedule
        self._schedule = schedules.from_config(schedule)

    def __call__(self, step: Any) -> Any:
        """The rate of the next update, float32."""
        return tf.cast(self._schedule(step), tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Our schedule's own configuration."""
        return {"schedule": self._config}
