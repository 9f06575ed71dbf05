"""The weights that the averages took the place of when a training ended: what `weights="raw"` exports."""

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmb.runs.run_dir import hash_weights

__all__ = ["raw_weights", "remember"]

# model -> (SHA-256 of the averages it got, what its trainable weights were before).
_before: weakref.WeakKeyDictionary[Any, tuple[str, list[np.ndarray]]] = weakref.WeakKeyDictionary()


def remember(model: Any, raw: Sequence[np.ndarray]) -> None:
    """Keeps the trainable weights of a model that has its averages now; without any, forgets them.

    Args:
        model: whose trainable variables hold the averages.
        raw: what they held before, in the order of `model.trainable_variables`; empty where there are no averages.
    """
    _before.pop(model, None)
    if raw:
        averages = [np.asarray(variable) for variable in model.trainable_variables]
        _before[model] = hash_weights(averages), list(raw)


def raw_weights(model: Any, trainable: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """What `remember` was told, as long as the model has the averages that it had then.

    Args:
        model: a Keras model.
        trainable: the values of its trainable variables.
    """
    checksum, raw = _before.get(model, (None, None))
    return raw if checksum is not None and hash_weights(trainable) == checksum else None
