"""A Keras optimizer without a counterpart here, inside our loop: Nadam, Lion, Adagrad, the user's own."""

from collections.abc import Sequence
from typing import Any

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers.optimizer import Optimizer, raw_variable, value_of
from tfmb.optimizers.rules import Settle, Slots, as_they_are

__all__ = ["ForeignOptimizer"]


class ForeignOptimizer(Optimizer):
    """Applies a Keras optimizer to mean gradients, in the cross-replica context.

    In the replica context Keras would reduce the gradients again. Clipping, averaging and weight decay are Keras's own.

    Args:
        optimizer: a `keras.optimizers.Optimizer`. It is used itself for the first variables it is built for; for a copy
            of the model under a strategy a new one with its configuration and state.

    Raises:
        ConfigError: it accumulates gradients itself.
    """

    across_replicas = True

    def __init__(self, optimizer: Any) -> None:
        if getattr(optimizer, "gradient_accumulation_steps", None):
            raise ConfigError(
                f"{type(optimizer).__name__}: gradient_accumulation_steps is not supported: give micro_batch_size"
            )
        super().__init__(0.0, name=optimizer.name)
        self.keras_optimizer = optimizer
        # Read now: Keras reads the rate for it, which no other strategy's scope allows. A function has no config.
        plain = isinstance(optimizer._learning_rate, (keras.Variable, keras.optimizers.schedules.LearningRateSchedule))
        self._config: dict[str, Any] | None = optimizer.get_config() if plain else None

    def rule(
        self, gradient: Any, slots: Slots, rate: Any, count: Any, settle: Settle = as_they_are
    ) -> tuple[Any, Slots]:
        """Keras's own: not to be had as a pure function."""
        raise NotImplementedError(f"{type(self.keras_optimizer).__name__} has no pure rule")

    def get_config(self) -> dict[str, Any]:
        """The Keras optimizer's configuration, as far as it is plain."""
        plain = {k: v for k, v in (self._config or {}).items() if isinstance(v, (int, float, str, bool)) or v is None}
        return {"keras_class": type(self.keras_optimizer).__name__, **plain}

    @property
    def learning_rate(self) -> Any:
        """Keras's rate as a float, or its schedule."""
        rate = self.keras_optimizer._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return rate
        return float(str(keras.ops.convert_to_numpy(self.keras_optimizer.learning_rate)))

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if not isinstance(self.learning_rate, float):
            raise ConfigError(f"{self.name} follows a schedule: its learning rate cannot be assigned")
        self.keras_optimizer.learning_rate = value

    def rate_at(self, updates: Any) -> Any:
        """The rate of the update after `updates` updates, as a float64 scalar."""
        rate = self.keras_optimizer._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return tf.cast(rate(updates), tf.float64)
        return tf.cast(raw_variable(rate), tf.float64)

    @property
    def variables(self) -> list[Any]:
        """All of Keras's."""
        return [raw_variable(v) for v in self.keras_optimizer.variables] if self._variables else []

    def build(self, variables: Sequence[Any], in_place_of: Sequence[Any] | None = None) -> None:
        """Makes Keras's slots; for other variables of the same shapes carries the state over."""
        del in_place_of
        raw = [raw_variable(variable) for variable in variables]
        if len(raw) == len(self._variables) and all(a is b for a, b in zip(raw, self._variables, strict=True)):
            return
        optimizer = self.keras_optimizer
        state = [value_of(raw_variable(v)) for v in optimizer.variables] if optimizer.built else []
        elsewhere = bool(self._variables) or tf.distribute.has_strategy()
        if elsewhere:
            if self._config is None:
                raise ConfigError(
                    f"{self.name}: a learning rate given as a function cannot be copied to replicas: "
                    "give a number or a LearningRateSchedule"
                )
            config = dict(self._config)
            if isinstance(optimizer._learning_rate, keras.Variable):
                config["learning_rate"] = float(value_of(raw_variable(optimizer._learning_rate)))
            optimizer = type(optimizer).from_config(config)
        optimizer.build(list(variables))
        if elsewhere and state:
            if [v.shape for v in state] != [tuple(v.shape) for v in optimizer.variables]:
                raise ConfigError(f"{self.name} was built for other variables: make a new optimizer for this model")
            for variable, value in zip(optimizer.variables, state, strict=True):
                variable.assign(value)
        self.keras_optimizer, self._variables = optimizer, list(raw)
        self._given = list(variables)
        self.iterations = raw_variable(optimizer.iterations)

    def apply(
        self, gradients: Sequence[Any], trainable_variables: Sequence[Any] | None = None, *, made: Any = None
    ) -> Any:
        """One update from mean gradients, in the cross-replica context; see `Optimizer.apply`.

        Raises:
            ConfigError: `made` is given: Keras's rules know no update that is not made; no gradient for any variable.
        """
        if made is not None:
            raise ConfigError(f"{self.name}: Keras's optimizers cannot choose in XLA whether an update is made")
        if trainable_variables is not None:
            self.build(trainable_variables)
        if all(gradient is None for gradient in gradients):
            raise ConfigError(f"{self.name}: no gradient for any variable: does the loss depend on the model?")
        pairs = [
            (tf.cast(gradient, variable.dtype), variable)
            for gradient, variable in zip(gradients, self._given, strict=True)
            if gradient is not None
        ]
        self.keras_optimizer.apply_gradients(pairs)
        return tf.constant(False)

    def overwrite_with_averages(self) -> None:
        """What Keras does when `fit` ends."""
        self.replaced = []
        if self._variables and int(self.keras_optimizer.iterations.numpy()):
            if self.keras_optimizer.use_ema:
                self.replaced = [value_of(variable) for variable in self._variables]
            self.keras_optimizer.finalize_variable_values(self._given)
