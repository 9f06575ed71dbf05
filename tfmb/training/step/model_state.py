"""A model's non-trainable state under replicas, whose own moves of it are merged again."""

import warnings
from typing import Any

from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.layers import Dropout
from tfmb.training.step.partition import Partition
from tfmb.types import KerasModel, Layer

__all__ = ["computes_in_float16", "dropouts", "merged_state", "refuse_padding", "warn_of_local_layers"]

_BATCH_NORM = keras.layers.BatchNormalization


def merged_state(model: KerasModel) -> list[Any]:
    """The floating-point non-trainable variables that a training step may move, such as BatchNorm's statistics.

    Integer state, such as a dropout's seed, moves alike on every replica and needs no merge.
    """
    return [v for v in model.non_trainable_variables if keras.backend.is_float_dtype(v.dtype)]


def computes_in_float16(model: KerasModel) -> bool:
    """Whether a layer computes in float16, whose gradients need a loss scale."""
    return any(layer.compute_dtype == "float16" for layer in model._flatten_layers())


def dropouts(model: KerasModel) -> list[Any]:
    """The model's layers of our `Dropout`, in order."""
    return [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, Dropout)]


def refuse_padding(model: KerasModel) -> None:
    """Raises a `ConfigError` where rows that only fill up a batch would enter a layer's statistics."""
    norms = [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, _BATCH_NORM)]
    if named := ", ".join(layer.name for layer in norms if layer.trainable):
        raise ConfigError(
            f"{named} would take the rows that fill up a batch into its statistics: set pad_batches=False, or use a "
            "batch size that divides the number of examples and is a multiple of the number of parts"
        )


def _draws(layer: Layer) -> bool:
    """Whether a layer draws random numbers; a recurrent one without dropout has a generator, but no use for it."""
    rates = [getattr(layer, name) for name in ("rate", "dropout", "recurrent_dropout") if hasattr(layer, name)]
    return bool(getattr(layer, "_seed_generators", None)) and (not rates or any(rates))


def warn_of_local_layers(model: KerasModel, partition: Partition) -> None:
    """One warning that names the layers whose meaning depends on how a batch is cut.

    Raises:
        ConfigError: a synchronised BatchNormalization, and parts that follow each other on a device: it sees only
            those that are computed at the same time.
    """
    local: list[str] = []
    random: list[str] = []
    synchronized: list[str] = []
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, _BATCH_NORM):
            (synchronized if getattr(layer, "synchronized", False) else local).append(layer.name)
        if _draws(layer) and not isinstance(layer, Dropout):
            random.append(layer.name)
    if synchronized and partition.virtual_replicas is not None:
        raise ConfigError(
            f"{', '.join(synchronized)} cannot be synchronised over parts that are computed one after the other: leave "
            "virtual_replicas and micro_batch_size out, or set synchronized=False (statistics of each part)"
        )
    messages = []
    if local:
        messages.append(
            f"{', '.join(local)} normalise by the statistics of each of the {partition.num_microbatches} parts of a "
            "batch, not of the whole (keep virtual_replicas the same to keep the answer)"
        )
    if random:
        messages.append(
            f"{', '.join(random)} draw random numbers that depend on the number of replicas and parts "
            "(use tfmb.layers.Dropout)"
        )
    if messages:
        warnings.warn("; ".join(messages), stacklevel=3)
