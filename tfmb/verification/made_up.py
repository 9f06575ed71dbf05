"""Made-up examples for a compiled model: rows of its inputs, and targets of the kind that its losses take."""

from typing import Any

import numpy as np

from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.training.keras_api.compile_args import read_compiled
from tfmb.types import KerasModel

__all__ = ["made_up_examples"]

# An axis of any length, such as the words of a text, gets so many entries.
_FREE_AXIS = 8
_SEED = 0


def made_up_examples(model: KerasModel, rows: int, name: str) -> tuple[Any, Any]:
    """Returns `(x, y)` of random numbers that the model and its losses take.

    Args:
        model: compiled.
        rows: the number of examples.
        name: of the model's function, for the error.

    Raises:
        ConfigError: the model does not say what it takes, or takes texts.
    """
    draw = np.random.default_rng(_SEED)
    graph = getattr(model, "_functional", model)  # a Sequential model keeps its own aside
    inputs, outputs = getattr(graph, "_inputs_struct", None), getattr(graph, "_outputs_struct", None)
    if inputs is None:
        raise ConfigError(f"{name}: the model does not say what it takes: give --dataset module:load")

    def rows_of(tensor: Any) -> np.ndarray:
        kind = keras.backend.standardize_dtype(tensor.dtype)
        shape = _shape(rows, tensor)
        if kind == "string":
            raise ConfigError(f"{name}: the model takes texts, which are not made up: give --dataset module:load")
        if kind == "bool" or "int" in kind:
            return draw.integers(0, 2, shape).astype(kind)  # numbers of words, which every vocabulary has
        return draw.standard_normal(shape).astype("float32")

    found = keras.tree.flatten(outputs)
    losses = _losses(model, len(found))
    targets = [
        None if loss is None else _targets(loss, rows, each, draw) for loss, each in zip(losses, found, strict=True)
    ]
    return keras.tree.map_structure(rows_of, inputs), keras.tree.pack_sequence_as(outputs, targets)


def _losses(model: KerasModel, outputs: int) -> list[Any]:
    """The loss of each output; one loss is that of all."""
    loss = read_compiled(model).loss
    if isinstance(loss, dict):
        named = [loss.get(name) for name in model.output_names]
        return named if len(named) == outputs else list(loss.values())
    return list(loss) if isinstance(loss, (list, tuple)) else [loss] * outputs


def _targets(loss: Any, rows: int, output: Any, draw: np.random.Generator) -> np.ndarray:
    """Targets of the kind that a loss takes by its name: classes, one class of several, 0 or 1, or any numbers."""
    text = (
        loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__)
    )
    kind, shape = str(text).lower().replace("_", ""), _shape(rows, output)
    if "sparse" in kind:
        return draw.integers(0, shape[-1], shape[:-1])
    if "categorical" in kind:
        classes = draw.integers(0, shape[-1], shape[:-1])
        return np.eye(shape[-1], dtype="float32")[classes]
    if any(word in kind for word in ("binary", "hinge", "poisson", "log", "divergence")):
        return draw.integers(0, 2, shape).astype("float32")
    return draw.standard_normal(shape).astype("float32")


def _shape(rows: int, tensor: Any) -> tuple[int, ...]:
    return (rows, *(_FREE_AXIS if axis is None else int(axis) for axis in tensor.shape[1:]))
