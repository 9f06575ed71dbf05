"""The variables of a Keras optimizer in the order in which our rules keep theirs: one state for both."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.types import Tensor, Variable

__all__ = ["KerasState", "copies_of", "rate_after", "raw_variable", "state_of", "value_of", "variables_by_name"]


@dataclass(frozen=True, kw_only=True)
class KerasState:
    """A Keras optimizer's own `tf.Variable`s.

    Attributes:
        iterations: the count of updates.
        rate: the learning rate; None if a schedule decides it.
        slots: one tuple for each variable that is trained.
        averages: one for each variable that is trained, with `use_ema`; else none.
    """

    iterations: Any
    rate: Any
    slots: list[tuple[Any, ...]]
    averages: list[Any]

    @property
    def variables(self) -> list[Any]:
        """All but the rate, in the order of `Optimizer.variables`."""
        return [self.iterations, *(slot for slots in self.slots for slot in slots), *self.averages]


def raw_variable(variable: Variable) -> Any:
    """The `tf.Variable` of a `keras.Variable`; a `tf.Variable` itself."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def copies_of(variable: Variable) -> list[Any]:
    """Every replica's copy of a variable, as `tf.Variable`s; itself if there is one alone."""
    raw = raw_variable(variable)
    return list(getattr(raw, "values", [raw]))


def value_of(variable: Variable) -> Any:
    """A variable's value on the host, whichever strategy made it and whichever one's scope this is."""
    return getattr(variable, "values", [variable])[0].numpy()


def rate_after(updates: Tensor, optimizer: Any) -> Any:
    """Returns a Keras optimizer's rate after `updates` updates, a float64 scalar: of a number, schedule or function."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        rate = rate(updates)
    elif not isinstance(rate, keras.Variable):
        rate = rate()
    return tf.cast(raw_variable(rate), tf.float64)


def state_of(optimizer: Any, slot_names: Sequence[str], variables: Sequence[Any]) -> KerasState:
    """The state of a Keras SGD, RMSprop, Adam, AdamW or `KerasOptimizer`, which is built first where it is not.

    Args:
        optimizer: Keras's.
        slot_names: the counterpart's names of its slots.
        variables: the Keras variables that are trained, of those that the optimizer was built for.

    Raises:
        ConfigError: the optimizer was built for other variables.
    """
    build(optimizer, variables)
    at = places(optimizer, variables)
    slots = _slots_by_name(optimizer) if at else {}
    rate = optimizer._learning_rate
    averages = optimizer._model_variables_moving_average if optimizer.use_ema and at else []
    return KerasState(
        iterations=raw_variable(optimizer._iterations),
        rate=raw_variable(rate) if isinstance(rate, keras.Variable) else None,
        slots=[tuple(raw_variable(slots[name][i]) for name in slot_names) for i in at],
        averages=[raw_variable(averages[i]) for i in at if optimizer.use_ema],
    )


def build(optimizer: Any, variables: Sequence[Any]) -> None:
    """Builds a Keras optimizer that is not built yet, in the scope that it was made in.

    Without variables it stays unbuilt, as in `fit` of a frozen model: it may be built for later variables.
    """
    if optimizer.built or not variables:
        return
    made_in: Any = getattr(optimizer, "_distribution_strategy", None)
    elsewhere = made_in is not None and made_in is not tf.distribute.get_strategy()
    with tf.init_scope(), made_in.scope() if elsewhere else contextlib.nullcontext():
        optimizer.build(list(variables))


def variables_by_name(optimizer: Any, trained: Sequence[Any]) -> dict[str, Any]:
    """The variables of a built Keras optimizer by the attributes that hold them, those of its own list first.

    Its list lacks what it makes while Keras does not look: Nadam's product under a `LossScaleOptimizer`.

    Args:
        optimizer: of Keras.
        trained: the model's variables, which it holds too.
    """
    names: dict[int, tuple[str, Any]] = {}
    not_its_own = {id(variable) for variable in trained}
    for attribute, value in vars(optimizer).items():
        inner = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else [value])
        for place, variable in inner:
            if isinstance(variable, keras.Variable) and id(variable) not in not_its_own:
                names.setdefault(id(variable), (f"{attribute}/{place}", variable))
    listed = {}
    for number, variable in enumerate(optimizer.variables):
        name, _ = names.pop(id(variable), (f"variables/{number}", variable))
        listed[name] = variable
    return {**listed, **dict(names.values())}


def places(optimizer: Any, variables: Sequence[Any]) -> list[int]:
    """The numbers by which a built Keras optimizer knows some variables.

    Raises:
        ConfigError: it does not know one of them.
    """
    try:
        return [optimizer._get_variable_index(variable) for variable in variables]
    except KeyError as error:
        raise ConfigError(
            f"the optimizer {optimizer.name} was built for other variables: if you changed which layers are trainable, "
            "compile the model again with a new optimizer"
        ) from error


def _slots_by_name(optimizer: Any) -> dict[str, Any]:
    """Keras's slot variables by the names that ours have."""
    if hasattr(optimizer, "slots_by_name"):  # `as_keras`
        found: dict[str, Any] = optimizer.slots_by_name
        return found
    if isinstance(optimizer, keras.optimizers.Adam):
        largest = getattr(optimizer, "_velocity_hats", [])
        return {"m": optimizer._momentums, "v": optimizer._velocities, "v_largest": largest}
    if isinstance(optimizer, keras.optimizers.RMSprop):
        momenta, means = getattr(optimizer, "_momentums", []), getattr(optimizer, "_average_gradients", [])
        return {"mean_square": optimizer._velocities, "velocity": momenta, "mean_gradient": means}
    return {"velocity": getattr(optimizer, "momentums", [])}
