"""A model's non-trainable state under replicas: what each replica moved on its own is merged again."""

import warnings
from typing import Any

from tfmb.backend import keras
from tfmb.layers import Dropout
from tfmb.training.parts import Cut

__all__ = ["computes_in_float16", "merged_state", "warn_of_local_layers"]


def merged_state(model: Any) -> list[Any]:
    """The floating-point non-trainable variables that a training step may move, such as BatchNorm's statistics.

    Integer state, such as a dropout's seed, moves alike on every replica and needs no merge.
    """
    return [v for v in model.non_trainable_variables if keras.backend.is_float_dtype(v.dtype)]


def computes_in_float16(model: Any) -> bool:
    """Whether a layer computes in float16, whose gradients need a loss scale."""
    return any(layer.compute_dtype == "float16" for layer in model._flatten_layers())


def _draws(layer: Any) -> bool:
    """Whether a layer draws random numbers; a recurrent one without dropout has a generator, but no use for it."""
    rates = [getattr(layer, name) for name in ("rate", "dropout", "recurrent_dropout") if hasattr(layer, name)]
    return bool(getattr(layer, "_seed_generators", None)) and (not rates or any(rates))


def warn_of_local_layers(model: Any, cut: Cut) -> None:
    """One warning that names the layers whose meaning depends on how a batch is cut."""
    local, random = [], []
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization) and not getattr(layer, "synchronized", False):
            local.append(layer.name)
        if _draws(layer) and not isinstance(layer, Dropout):
            random.append(layer.name)
    messages = []
    if local:
        messages.append(
            f"{', '.join(local)} normalise by the statistics of each of the {cut.all_parts} parts of a batch, not of "
            "the whole (keep virtual_replicas the same to keep the answer)"
        )
    if random:
        messages.append(
            f"{', '.join(random)} draw random numbers that depend on the number of replicas and parts "
            "(use tfmb.layers.Dropout)"
        )
    if messages:
        warnings.warn("; ".join(messages), stacklevel=3)
