"""`Optimizer`: owns the slots and the count, and is the only writer of weights."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError

__all__ = ["Optimizer"]


class Optimizer:
    """The base of the optimizers: a subclass names its slots and its rule (see `tfmb.optimizers.rules`).

    Args:
        learning_rate: a float, or a function of the number of updates made so far (an int64 scalar tensor)
            that returns the rate, such as a `keras.optimizers.schedules.LearningRateSchedule`.
        weight_decay: None, or a factor: each update also subtracts `learning_rate * weight_decay * weight`
            (decoupled, as in Keras).
        name: the optimizer's name.

    Attributes:
        iterations: int64 variable, the number of updates made; made by `build`.
        slots: one tuple of variables for each trainable variable; made by `build`.

    Raises:
        ConfigError: a hyper-parameter out of its range.

    Example:
        >>> weight = tf.Variable([1.0])
        >>> optimizer = tfmb.optimizers.SGD(learning_rate=0.1)
        >>> optimizer.apply([tf.constant([0.5])], [weight])
        >>> weight.numpy()
        array([0.95], dtype=float32)
    """

    slot_names: tuple[str, ...] = ()

    def __init__(self, learning_rate: Any, weight_decay: float | None = None, name: str = "optimizer") -> None:
        self.name = name
        self.weight_decay = None if weight_decay is None else check_number(weight_decay, "weight_decay", low=0.0)
        self.iterations: Any = None
        self.slots: list[tuple[Any, ...]] = []
        self._variables: list[Any] = []
        self._rate: Any = None
        self._schedule: Callable[[Any], Any] | None = None
        self._initial_rate = 0.0
        if callable(learning_rate):
            self._schedule = learning_rate
        else:
            self._initial_rate = check_number(learning_rate, "learning_rate", low=0.0)

    def rule(self, gradient: Any, slots: tuple[Any, ...], rate: Any, count: Any) -> tuple[Any, tuple[Any, ...]]:
        """The update of one variable: (gradient, slots, rate, count) -> (delta, slots)."""
        raise NotImplementedError(f"{type(self).__name__} must define rule()")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for records; a schedule appears by its `repr`."""
        rate = self.learning_rate
        return {
            "name": self.name,
            "learning_rate": rate if isinstance(rate, float) else repr(rate),
            "weight_decay": self.weight_decay,
        }

    @property
    def learning_rate(self) -> Any:
        """The rate as a float, or the schedule. A float that is assigned holds from the next update, untraced."""
        if self._schedule is not None:
            return self._schedule
        return self._initial_rate if self._rate is None else float(_value(self._rate))

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if self._schedule is not None:
            raise ConfigError(f"{self.name} follows a schedule: its learning rate cannot be assigned")
        self._initial_rate = check_number(value, "learning_rate", low=0.0)
        if self._rate is not None:
            self._rate.assign(self._initial_rate)

    def rate_at(self, updates: Any) -> Any:
        """The rate of the update after `updates` updates (an int64 scalar), as a float64 scalar."""
        if self._schedule is not None:
            return tf.cast(self._schedule(updates), tf.float64)
        return tf.convert_to_tensor(self._rate if self._rate is not None else self._initial_rate, tf.float64)

    @property
    def variables(self) -> list[Any]:
        """The count, then every slot, variable by variable: all that the next update depends on but the rate."""
        if self.iterations is None:
            return []
        return [self.iterations, *(slot for slots in self.slots for slot in slots)]

    def build(self, variables: Sequence[Any]) -> None:
        """Makes the slots of `variables` (`keras.Variable`s or `tf.Variable`s), zeros of their shape and dtype.

        Call it inside the strategy's scope. Building anew for other variables of the same shapes, such as a copy
        of the model, carries the state over; building for the same variables does nothing.

        Raises:
            ConfigError: it was built for variables of other shapes.
        """
        raw = [raw_variable(variable) for variable in variables]
        if len(raw) == len(self._variables) and all(a is b for a, b in zip(raw, self._variables, strict=True)):
            return
        old = [(v.shape, v.dtype) for v in self._variables]
        if old and old != [(v.shape, v.dtype) for v in raw]:
            raise ConfigError(f"{self.name} was built for other variables: make a new optimizer for this model")
        with tf.init_scope():
            state = [_value(variable) for variable in self.variables]
            rate = self._initial_rate if self._rate is None else _value(self._rate)
            self._rate = None if self._schedule else tf.Variable(rate, dtype=tf.float64, trainable=False)
            self.iterations = tf.Variable(0, dtype=tf.int64, trainable=False, name="iterations")
            self.slots = [
                tuple(tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False, name=name) for name in self.slot_names)
                for v in raw
            ]
            for variable, value in zip(self.variables, state, strict=False):
                variable.assign(value)
        self._variables = raw

    def apply(self, gradients: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Makes one update from the mean gradients.

        Under a strategy the gradients must be reduced already; call it in the replica context with the same
        gradients on each replica, or in the cross-replica context.

        Args:
            gradients: one tensor for each variable, of its shape; None leaves that variable as it is.
                `tf.IndexedSlices` are made dense.
            trainable_variables: the variables, if `build` was not called before.

        Raises:
            ConfigError: there is not one gradient for each variable, or none at all.
        """
        if trainable_variables is not None:
            self.build(trainable_variables)
        if len(gradients) != len(self._variables):
            raise ConfigError(f"{self.name}: {len(gradients)} gradients for {len(self._variables)} variables")
        if all(gradient is None for gradient in gradients):
            raise ConfigError(f"{self.name}: no gradient for any variable: does the loss depend on the model?")
        rate = self.rate_at(self.iterations)
        count = self.iterations.assign_add(1)
        for gradient, variable, slots in zip(gradients, self._variables, self.slots, strict=True):
            if gradient is not None:
                self._update(tf.convert_to_tensor(gradient), variable, slots, rate, tf.cast(count, tf.float64))

    def _update(self, gradient: Any, variable: Any, slots: tuple[Any, ...], rate: Any, count: Any) -> None:
        rate = tf.cast(rate, variable.dtype)
        values = tuple(tf.convert_to_tensor(slot) for slot in slots)
        delta, new_values = self.rule(tf.cast(gradient, variable.dtype), values, rate, count)
        if self.weight_decay:
            delta -= rate * self.weight_decay * variable
        for slot, value in zip(slots, new_values, strict=True):
            slot.assign(value)
        variable.assign_add(delta)


def _value(variable: Any) -> Any:
    """A variable's value on the host, whichever strategy made it and whichever one's scope this is."""
    return getattr(variable, "values", [variable])[0].numpy()


def raw_variable(variable: Any) -> Any:
    """The `tf.Variable` of a `keras.Variable`; a `tf.Variable` itself."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def check_number(
    value: Any, name: str, low: float = -math.inf, high: float = math.inf, below: float = math.inf
) -> float:
    """`value` as a finite float in [low, high] and less than `below`; else a `ConfigError` that names it."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}={value!r} is not a number") from error
    if isinstance(value, bool) or not math.isfinite(number) or not low <= number <= high or number >= below:
        limit = f"in [{low:g}, {below:g})" if below < math.inf else f"in [{low:g}, {high:g}]"
        raise ConfigError(
            f"{name}={value!r} must be {limit if high < math.inf or below < math.inf else f'at least {low:g}'}"
        )
    return number
