"""A model's non-trainable state under replicas: what each replica moved on its own is merged again."""

import warnings
from typing import Any

from tfmb.backend import keras

__all__ = ["merged_state", "warn_of_local_layers"]


def merged_state(model: Any) -> list[Any]:
    """The floating-point non-trainable variables that a training step may move, such as BatchNorm's statistics.

    Integer state, such as a dropout's seed, moves alike on every replica and needs no merge.
    """
    return [v for v in model.non_trainable_variables if keras.backend.is_float_dtype(v.dtype)]


def warn_of_local_layers(model: Any) -> None:
    """One warning that names the layers whose meaning depends on the number of replicas."""
    local, random = [], []
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization) and not getattr(layer, "synchronized", False):
            local.append(layer.name)
        if getattr(layer, "_seed_generators", None):
            random.append(layer.name)
    parts = []
    if local:
        parts.append(f"{', '.join(local)} normalise by the statistics of each replica's own part of the batch")
    if random:
        parts.append(f"{', '.join(random)} draw the same random numbers on every replica")
    if parts:
        warnings.warn(f"with several replicas the answer differs from one device's: {'; '.join(parts)}", stacklevel=3)
