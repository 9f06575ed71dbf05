"""A Keras optimizer without a counterpart here, inside our loop: Nadam, Lion, Adagrad, the user's own."""

from collections.abc import Sequence
from typing import Any

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers import sparse
from tfmb.optimizers.hyper_parameters import describe_rate
from tfmb.optimizers.keras_config import config_of
from tfmb.optimizers.optimizer import Optimizer
from tfmb.optimizers.shared_state import build, places, rate_after, raw_variable, value_of, variables_by_name
from tfmb.types import DType, Slots, Tensor

__all__ = ["ForeignOptimizer"]


class ForeignOptimizer(Optimizer):
    """Applies a Keras optimizer to mean gradients, in the cross-replica context.

    In the replica context Keras would reduce the gradients again. Clipping, averaging and weight decay are Keras's own.

    Args:
        optimizer: a `keras.optimizers.Optimizer`. It is used itself on one device; under a strategy that copies
            variables to its devices a new one with its configuration, see `counterparts`.

    Attributes:
        keras_optimizer: the one that makes the updates.
    """

    across_replicas = True

    def __init__(self, optimizer: Any) -> None:
        super().__init__(0.0, name=optimizer.name, loss_scale_factor=getattr(optimizer, "loss_scale_factor", None))
        self.stands_for = self.keras_optimizer = optimizer
        # Read now: Keras reads the rate for it, which no other strategy's scope allows.
        self._config = config_of(optimizer)

    def step(self, gradient: Tensor, slots: Slots, rate: Tensor, count: Tensor) -> Any:
        """Keras's own: not to be had as a pure function."""
        raise NotImplementedError(f"{type(self.keras_optimizer).__name__} has no pure rule")

    def get_config(self) -> dict[str, Any]:
        """Returns the plain part of the Keras optimizer's configuration."""
        plain = {k: v for k, v in self._config.items() if isinstance(v, (int, float, str, bool)) or v is None}
        rate = self.keras_optimizer._learning_rate
        schedule = {} if isinstance(rate, keras.Variable) else {"learning_rate": describe_rate(rate)}
        return {"keras_class": type(self.keras_optimizer).__name__, **plain, **schedule}

    @property
    def learning_rate(self) -> Any:
        """Keras's rate as a float, or its schedule or function."""
        rate = self.keras_optimizer._learning_rate
        return float(str(keras.ops.convert_to_numpy(rate))) if isinstance(rate, keras.Variable) else rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if not isinstance(self.learning_rate, float):
            raise ConfigError(f"{self.name} follows a schedule: its learning rate cannot be assigned")
        self.keras_optimizer.learning_rate = value

    @property
    def rate_variables(self) -> dict[str, Any]:
        """See `Optimizer.rate_variables`."""
        rate = self.keras_optimizer._learning_rate
        return {"learning_rate": raw_variable(rate)} if isinstance(rate, keras.Variable) else {}

    def rate_at(self, updates: Tensor) -> Any:
        """The rate of the update after `updates` updates, as a float64 scalar."""
        return rate_after(updates, self.keras_optimizer)

    @property
    def variables(self) -> list[Any]:
        """All of Keras's variables, those that it does not list too."""
        if not self._variables:
            return []
        return [raw_variable(v) for v in variables_by_name(self.keras_optimizer, self._given).values()]

    def build(self, variables: Sequence[Any], in_place_of: Sequence[Any] | None = None) -> None:
        """Makes Keras's slots: its own, or in a strategy's scope those of a copy.

        Raises:
            ConfigError: it was built for other variables, or cannot be copied.
        """
        del in_place_of
        raw = [raw_variable(variable) for variable in variables]
        shares = not tf.distribute.has_strategy()
        if self._is_built_for(raw) and self._shares == shares:
            return
        optimizer = self.stands_for if shares else self._copy()
        build(optimizer, variables)
        places(optimizer, variables)
        self.keras_optimizer, self._variables, self._shares = optimizer, list(raw), shares
        self._given = list(variables)
        self.iterations = raw_variable(optimizer._iterations)

    def counterparts(self, variables: Sequence[Any]) -> list[tuple[Any, Any]]:
        """See `Optimizer.counterparts`."""
        if self._shares or self.iterations is None:
            return []
        build(self.stands_for, variables)
        theirs = variables_by_name(self.stands_for, variables)
        ours = variables_by_name(self.keras_optimizer, self._given)
        return [(raw_variable(theirs[name]), raw_variable(variable)) for name, variable in ours.items()]

    def _copy(self) -> Any:
        rate = self.stands_for._learning_rate
        if not isinstance(rate, (keras.Variable, keras.optimizers.schedules.LearningRateSchedule)):
            raise ConfigError(
                f"{self.name}: a learning rate given as a function cannot be copied to replicas: "
                "give a number or a LearningRateSchedule"
            )
        return type(self.stands_for).from_config({"learning_rate": rate, **self._config})

    def apply(
        self, gradients: Sequence[Any], trainable_variables: Sequence[Any] | None = None, *, made: Any = None
    ) -> Any:
        """Makes one update from mean gradients, in the cross-replica context; see `Optimizer.apply`.

        Raises:
            ConfigError: `made` is given: Keras's rules know no update that is not made; no gradient for any variable.
        """
        if made is not None:
            raise ConfigError(f"{self.name}: Keras's optimizers cannot choose in XLA whether an update is made")
        if trainable_variables is not None:
            self.build(trainable_variables)
        if all(gradient is None for gradient in gradients):
            raise ConfigError(f"{self.name}: no gradient for any variable: does the loss depend on the model?")
        factor = self.loss_scale_factor or 1.0  # by which Keras divides

        def scaled(gradient: Tensor, dtype: DType) -> Any:
            return sparse.on_values(lambda values: tf.cast(values, dtype) * factor, gradient)

        pairs = [
            (scaled(gradient, variable.dtype), variable)
            for gradient, variable in zip(gradients, self._given, strict=True)
            if gradient is not None
        ]
        self.keras_optimizer.apply_gradients(pairs)
        return tf.constant(False)

    def overwrite_with_averages(self) -> None:
        """Overwrites the weights with their averages, as Keras does when `fit` ends."""
        self.replaced = []
        if self._variables and int(value_of(self.iterations)):
            if self.keras_optimizer.use_ema:
                self.replaced = [value_of(variable) for variable in self._variables]
            self.keras_optimizer.finalize_variable_values(self._given)
