"""The weights that leave in an export: one value for all replicas' copies; averaged, raw, or as they stand."""

import contextlib
from collections.abc import Iterator

import numpy as np

from tfmb.backend import keras
from tfmb.distribution.multi_worker import is_first_worker
from tfmb.distribution.strategy import is_chief
from tfmb.errors import ConfigError, DataError
from tfmb.optimizers.shared_state import copies_of, raw_variable, value_of
from tfmb.runs.raw_weights import raw_weights
from tfmb.types import KerasModel, Variable

__all__ = ["KINDS", "exported_weights", "writes"]

KINDS = ("ema", "raw")


def writes(model: KerasModel) -> bool:
    """Whether this process is the one that exports a model: the first of several workers, or the only one."""
    strategies = {getattr(raw_variable(v), "distribute_strategy", None) for v in model.variables} - {None}
    return is_first_worker() and all(is_chief(strategy) for strategy in strategies)


@contextlib.contextmanager
def exported_weights(model: KerasModel, kind: str | None) -> Iterator[str | None]:
    """Puts the weights to export into the model while the block runs, and gives their kind.

    Statistics that each replica moved on its own, as BatchNormalization's under `keras.Model.fit`, become their mean.

    Args:
        model: built.
        kind: `"ema"`, `"raw"`, or None for the weights that it has.

    Raises:
        ConfigError: an unknown kind, or weights that are not there.
        DataError: the replicas' copies of a trained weight differ, or one is not finite.
    """
    if kind not in (*KINDS, None):
        raise ConfigError(f"weights={kind!r} must be one of {', '.join(KINDS)}, or None for those the model has")
    before = [[copy.numpy() for copy in copies_of(v)] for v in model.variables]
    values = [_merged(v, copies) for v, copies in zip(model.variables, before, strict=True)]
    kind = _choose(model, kind, values)
    for variable, value in zip(model.variables, values, strict=True):
        if keras.backend.is_float_dtype(variable.dtype) and not np.isfinite(value.astype(np.float32)).all():
            raise DataError(f"{variable.path} is not finite: the training diverged, there is nothing to export")
    changed = [
        (variable, value, copies)
        for variable, value, copies in zip(model.variables, values, before, strict=True)
        if any(copy.tobytes() != value.tobytes() for copy in copies)
    ]
    try:
        for variable, value, _ in changed:
            variable.assign(value)
        yield kind
    finally:
        for variable, _, copies in changed:
            for copy, value in zip(copies_of(variable), copies, strict=True):
                copy.assign(value)


def _merged(variable: Variable, copies: list[np.ndarray]) -> np.ndarray:
    if len({copy.tobytes() for copy in copies}) == 1:
        return copies[0]
    if variable.trainable:
        raise DataError(f"the replicas' copies of {variable.path} differ: they drifted apart in training")
    if not keras.backend.is_float_dtype(variable.dtype):
        return copies[0]  # a random layer's counter: no answer depends on it
    mean: np.ndarray = np.mean([copy.astype(np.float64) for copy in copies], axis=0).astype(copies[0].dtype)
    return mean


def _choose(model: KerasModel, kind: str | None, values: list[np.ndarray]) -> str | None:
    """Puts averages or raw weights in the place of the trainable values where they were asked for."""
    places = {id(variable): place for place, variable in enumerate(model.variables)}
    trainable = [places[id(variable)] for variable in model.trainable_variables]
    raw = raw_weights(model, [values[place] for place in trainable])
    if kind is None:
        return None if raw is None else "ema"
    if kind == "raw" and raw is not None:
        other = raw
    elif kind == "ema" and raw is not None:
        return kind
    elif (averages := _keras_averages(model)) is not None:
        if kind == "raw":
            return kind
        other = averages
    else:
        raise ConfigError(
            f"weights={kind!r}: no averages of {model.name!r} are known, or its weights changed since: "
            "train it with use_ema=True, and export it then"
        )
    for place, value in zip(trainable, other, strict=True):
        values[place] = value
    return kind


def _keras_averages(model: KerasModel) -> list[np.ndarray] | None:
    """Returns the averages of Keras's own optimizer, which are not yet in the weights' place."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    averages = getattr(optimizer, "_model_variables_moving_average", None)
    if optimizer is None or not averages:
        return None
    if not int(value_of(raw_variable(optimizer.iterations))):  # Keras's averages begin with the first update
        return None
    return [value_of(raw_variable(average)) for average in averages]
