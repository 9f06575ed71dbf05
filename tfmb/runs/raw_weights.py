"""The weights before the averages took their place at the end of a training; `weights="raw"` exports them."""

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmb.runs.run_dir import hash_weights
from tfmb.types import KerasModel

__all__ = ["raw_weights", "remember"]

# model -> (SHA-256 of the averages it got, what its trainable weights were before).
_before: weakref.WeakKeyDictionary[Any, tuple[str, list[np.ndarray]]] = weakref.WeakKeyDictionary()


def remember(model: KerasModel, raw: Sequence[np.ndarray]) -> None:
    """Keeps the trainable weights of a model that has its averages now; without any, forgets them.

    Args:
        model: whose trainable variables hold the averages.
        raw: their values before, in the order of `model.trainable_variables`; empty if there are no averages.
    """
    _before.pop(model, None)
    if raw:
        averages = [np.asarray(variable) for variable in model.trainable_variables]
        _before[model] = hash_weights(averages), list(raw)


def raw_weights(model: KerasModel, trainable: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """Returns the weights that `remember` was given, as long as the model still has the averages of that time.

    Args:
        model: a Keras model.
        trainable: the values of its trainable variables.
    """
    checksum, raw = _before.get(model, (None, None))
    return raw if checksum is not None and hash_weights(trainable) == checksum else None
