"""The placement of a model's variables on a strategy's devices, in a copy of a model that was built elsewhere."""

import contextlib
import json
from typing import Any

from tfmb.backend import keras, tf
from tfmb.distribution.strategy import is_multi_worker, makes_copies
from tfmb.errors import ConfigError, first_line
from tfmb.optimizers.optimizer import raw_variable
from tfmb.seeds import seeded
from tfmb.training.input.first_inputs import FirstInputs, symbols_of
from tfmb.training.step.own_step import has_own_step
from tfmb.types import KerasModel, Strategy

__all__ = ["built_under", "place", "take_back"]


def built_under(model: KerasModel, strategy: Strategy, devices: int | None, joins: bool = True) -> Any:
    """Returns the strategy that a model was built under if `"auto"` leaves it open, as Keras does; else the given one.

    Args:
        model: the user's.
        strategy: as it was given.
        devices: as it was given.
        joins: whether all workers of a cluster take part; else a strategy of several is not taken.
    """
    theirs = getattr(model, "_distribute_strategy", None)
    if strategy != "auto" or devices is not None or theirs is None or (is_multi_worker(theirs) and not joins):
        return strategy
    return theirs


def place(model: KerasModel, strategy: Strategy, inputs: FirstInputs) -> Any:
    """Returns the model itself if the strategy can train it, else a copy of it made in the strategy's scope.

    The copy is kept with the model: its traces serve the next call under the same strategy.

    Args:
        model: the user's.
        strategy: the strategy that is to train it.
        inputs: to build a model with that is not built yet; looked at only for one.

    Raises:
        ConfigError: the model must be copied and cannot be.
    """
    if not model.built and not has_own_step(model):  # whose step builds it, as in Keras
        with strategy.scope():
            _build(model, inputs)
    raw = [raw_variable(v) for v in model.variables]
    elsewhere = [v for v in raw if getattr(v, "distribute_strategy", strategy) is not strategy]
    if elsewhere and not makes_copies(strategy):
        raise ConfigError(
            f"the model {model.name!r} was built in the scope of a {type(elsewhere[0].distribute_strategy).__name__}: "
            "give that strategy"
        )
    if not makes_copies(strategy) or all(strategy.extended.variable_created_in_scope(v) for v in raw):
        return model
    kept: tuple[Any, str | None, Any] = getattr(model, "_tfmb_copy", (None, None, None))
    where, known, placed = kept
    if where is not strategy or known is None or known != _structure(model):
        placed = _clone(model, strategy, inputs)
        # On the model itself, past Keras's own tracking: it lives and dies with the model, and is not saved.
        object.__setattr__(model, "_tfmb_copy", (strategy, _structure(model), placed))
    for layer, original in zip(placed.layers, model.layers, strict=True):
        layer.trainable = original.trainable
    for ours, theirs in zip(placed.variables, model.variables, strict=True):
        ours.assign(theirs)
    return placed


def _build(model: KerasModel, inputs: FirstInputs) -> None:
    """Builds a model as Keras does, without computing anything: a layer may count its calls."""
    # A user's layer may not compute on symbols. It is called with numbers below, where its own errors are raised.
    with contextlib.suppress(AttributeError, TypeError, ValueError, NotImplementedError):
        model(symbols_of(inputs.spec()))
    if not model.built or not all(layer.built for layer in model._flatten_layers(include_self=False)):
        model(inputs.numbers())


def take_back(placed: KerasModel, model: KerasModel) -> None:
    """Copies the variables of the placed copy into the user's model."""
    if placed is not model:
        for ours, theirs in zip(placed.variables, model.variables, strict=True):
            theirs.assign(ours.numpy())


def _clone(model: KerasModel, strategy: Strategy, inputs: FirstInputs) -> Any:
    compiled = model.compiled
    try:
        model.compiled = False  # Keras would copy what it was compiled with too, and cannot for every function
        # Its initial values are overwritten: the program's generators must not move for them.
        with seeded(0), strategy.scope():
            placed = keras.models.clone_model(model)
            if not placed.built:
                placed(inputs.numbers())
    except tf.errors.OpError:
        raise  # of a device or another worker, not of the model
    except Exception as error:  # cloning runs the user's get_config and constructors, which may raise anything
        raise ConfigError(
            f"the model {model.name!r} was built outside the strategy's scope and cannot be cloned "
            f"({first_line(error)}): give a function build_model in the model's place"
        ) from error
    finally:
        model.compiled = compiled
    if [v.shape for v in placed.variables] != [v.shape for v in model.variables]:
        raise ConfigError(f"a clone of {model.name!r} has other weights: give a function build_model in its place")
    return placed


def _structure(model: KerasModel) -> str | None:
    """Returns what decides a copy besides the weights, as text; None if that is unknown: each copy is then new."""
    try:
        return json.dumps([model.get_config(), [str(v.path) for v in model.variables]], default=_exactly)
    except (NotImplementedError, TypeError):  # Keras cannot record a subclass's arguments; keys that are no text
        return None


def _exactly(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else repr(value)
