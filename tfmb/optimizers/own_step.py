"""The rate and the step count of the optimizers of a model with its own `train_step`."""

import weakref
from collections.abc import Sequence
from typing import Any

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers.hyper_parameters import describe_rate
from tfmb.optimizers.keras_config import config_of
from tfmb.optimizers.optimizer import Optimizer
from tfmb.optimizers.shared_state import rate_after, raw_variable
from tfmb.types import KerasModel, Slots, Tensor

__all__ = ["OwnStepOptimizer"]


class OwnStepOptimizer(Optimizer):
    """Makes no update: the model's own step does that, with Keras's optimizers themselves.

    The loop asks it for a count and a rate. The count is one of steps: a step may apply several optimizers, or one
    twice. The rate is that of `model.optimizer`, or of the first optimizer among the model's attributes.

    Args:
        model: whose `train_step` is its own.
    """

    def __init__(self, model: KerasModel) -> None:
        super().__init__(0.0, name=f"{type(model).__name__}.train_step")
        # A table of models holds this: a strong reference would keep the model forever.
        self._model_of = weakref.ref(model)

    @property
    def _model(self) -> Any:
        return self._model_of()

    def step(self, gradient: Tensor, slots: Slots, rate: Tensor, count: Tensor) -> Any:
        """Refuses the call: the model's own step has the rule."""
        raise NotImplementedError(f"{self.name} has no rule")

    def get_config(self) -> dict[str, Any]:
        """The optimizers' classes and plain settings, by the names of the model's attributes."""
        return {name: _plain_config(optimizer) for name, optimizer in self._by_name().items()}

    @property
    def learning_rate(self) -> Any:
        """The first optimizer's rate as a float; a schedule or function where any has one, None without optimizers."""
        rates = [optimizer._learning_rate for optimizer in self._with_rates().values()]
        others = [rate for rate in rates if not isinstance(rate, keras.Variable)]
        if others or not rates:
            return others[0] if others else None
        return float(str(keras.ops.convert_to_numpy(rates[0])))

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        before = self.learning_rate
        if not isinstance(before, float):
            raise ConfigError(
                f"{self.name}: the rates of its optimizers cannot be assigned: give the optimizers numbers"
            )
        if value == before:
            return
        if not before:
            raise ConfigError(f"{self.name}: a rate of 0 cannot be scaled to {value:g} together with the other rates")
        for rate in self.rate_variables.values():
            rate.assign(rate * (value / before))

    @property
    def rate_variables(self) -> dict[str, Any]:
        """See `Optimizer.rate_variables`."""
        rates = {name: optimizer._learning_rate for name, optimizer in self._with_rates().items()}
        return {
            f"{n}.learning_rate": raw_variable(rate) for n, rate in rates.items() if isinstance(rate, keras.Variable)
        }

    def rate_at(self, updates: Tensor) -> Any:
        """Returns the first optimizer's rate, a float64 scalar; a schedule's rate after `updates` updates."""
        optimizers = list(self._with_rates().values())
        return rate_after(updates, optimizers[0]) if optimizers else tf.constant(0.0, tf.float64)

    def build(self, variables: Sequence[Any], in_place_of: Sequence[Any] | None = None) -> None:
        """Makes the count. The optimizers' slots are made as Keras makes them: when `fit` begins, or by the step."""
        del variables, in_place_of
        if self.iterations is None:
            self.iterations = tf.Variable(0, dtype=tf.int64, trainable=False, name="steps")

    def apply(
        self, gradients: Sequence[Any], trainable_variables: Sequence[Any] | None = None, *, made: Any = None
    ) -> Any:
        """Refuses the call."""
        raise NotImplementedError(f"{self.name} makes its updates itself")

    def overwrite_with_averages(self) -> None:
        """Overwrites the weights with the averages of `model.optimizer`, as Keras does when `fit` ends."""
        self.replaced = []
        optimizer = self._model.optimizer
        if isinstance(optimizer, keras.optimizers.Optimizer) and optimizer.built:
            if optimizer.use_ema:
                self.replaced = [variable.numpy() for variable in self._model.trainable_variables]
            optimizer.finalize_variable_values(self._model.trainable_weights)

    def _by_name(self) -> dict[str, Any]:
        """The model's optimizers by the names of its attributes, the compiled one first."""
        found = {"optimizer": self._model.optimizer, **vars(self._model)}
        return {name: each for name, each in found.items() if isinstance(each, keras.optimizers.Optimizer)}

    def _with_rates(self) -> dict[str, Any]:
        """Returns the optimizers by their places in `get_config`; of a loss scale the inner one, which has a rate."""
        found: dict[str, Any] = {}
        for name, each in self._by_name().items():
            inner = getattr(each, "inner_optimizer", None)
            found |= {name: each} if inner is None else {f"{name}.inner_optimizer": inner}
        return found


def _plain_config(optimizer: Any) -> dict[str, Any]:
    rate = optimizer._learning_rate
    plain: dict[str, Any] = {
        k: v
        for k, v in config_of(optimizer).items()
        if k != "name" and (isinstance(v, (int, float, str, bool)) or v is None)
    }
    if not isinstance(rate, keras.Variable):
        plain["learning_rate"] = describe_rate(rate)
    if (inner := getattr(optimizer, "inner_optimizer", None)) is not None:
        plain["inner_optimizer"] = _plain_config(inner)
    return {"class": type(optimizer).__name__, **plain}
