"""The optimizer that trains a model: the one of its last training if the user named the same."""

import weakref
from typing import Any

from tfmb.backend import keras
from tfmb.optimizers import Optimizer, interop
from tfmb.optimizers.keras_config import config_of
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.types import KerasModel

__all__ = ["optimizer_for", "own_step_for"]

# model -> (what the user named, its settings, our optimizer): a second call need not trace anew.
_optimizers: weakref.WeakKeyDictionary[Any, tuple[Any, Any, Optimizer]] = weakref.WeakKeyDictionary()


def optimizer_for(model: KerasModel, identifier: Any) -> Optimizer:
    """Returns our optimizer for the user's: the one of the model's last training if the user named the same.

    Args:
        model: the model that is trained.
        identifier: a name, a Keras optimizer, or one of ours.
    """
    if isinstance(identifier, Optimizer):
        return interop.around_keras(identifier)
    settings = config_of(identifier) if isinstance(identifier, keras.optimizers.Optimizer) else None
    known, as_it_was, optimizer = _optimizers.get(model, (None, None, None))
    same = known == identifier if isinstance(identifier, str) else known is identifier
    if same and settings is not None:
        same = interop.same_settings(settings, as_it_was)
    if optimizer is None or not same:
        optimizer = interop.get(identifier)
        _optimizers[model] = (identifier, settings, optimizer)
    return optimizer


def own_step_for(model: KerasModel) -> OwnStepOptimizer:
    """Returns the step counter of a model with its own step: the last training's, which goes on counting."""
    known = _optimizers.get(model, (None, None, None))[2]
    if not isinstance(known, OwnStepOptimizer):
        known = OwnStepOptimizer(model)
        _optimizers[model] = (None, None, known)
    return known
