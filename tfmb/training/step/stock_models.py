"""Models of Keras's own layers alone: the writes of their steps are known before the model is traced."""

from typing import Any

from tfmb.backend import keras, tf
from tfmb.layers import Dropout
from tfmb.types import KerasModel, Layer

__all__ = ["is_stock", "outputs_of"]

# Modules whose objects hold no function of the user's; `functools.partial`, of the standard library, may.
_THEIRS = ("keras", "tensorflow", "numpy", "builtins", "inspect")


def is_stock(model: KerasModel) -> bool:
    """Whether the model and all that its layers hold are Keras's, so that none of it writes a variable unseen.

    A layer with a function, a regularizer or an object of the user's is not: any of them may write a variable that
    only a trace finds. Losses of layers (`add_loss`, activity regularizers) are met in the model's own call alone.
    """
    kind = type(model)
    if not model.built or not _is_theirs(kind) or kind.__name__ not in ("Functional", "Sequential"):
        return False
    layers = model._flatten_layers(include_self=False)
    return all(_is_stock_layer(layer) for layer in layers)


def outputs_of(model: KerasModel) -> Any | None:
    """Placeholders' specs of what a stock model returns; None if more than the number of rows is open."""
    if type(model) is keras.Sequential:
        model = model._functional
    if model is None:
        return None
    shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(model.output)]
    if any(not shape or None in shape[1:] for shape in shapes):
        return None
    return keras.tree.map_structure(lambda tensor: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype), model.output)


def _is_stock_layer(layer: Layer) -> bool:
    if type(layer) is Dropout:
        return True
    if not _is_theirs(type(layer)) or isinstance(layer, (keras.layers.Lambda, keras.layers.TFSMLayer)):
        return False
    if getattr(layer, "activity_regularizer", None) is not None:
        return False
    return all(_is_theirs(each) for value in vars(layer).values() for each in _parts(value))


def _parts(value: Any) -> list[Any]:
    """Returns the parts of a layer's attribute: functions as themselves, other objects as their types."""
    if isinstance(value, dict):
        return [part for each in value.values() for part in _parts(each)]
    if isinstance(value, (list, tuple, set)):
        return [part for each in value for part in _parts(each)]
    return [value if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")) else type(value)]


def _is_theirs(thing: Any) -> bool:
    return str(getattr(thing, "__module__", None) or "builtins").split(".")[0] in _THEIRS or thing is Dropout
