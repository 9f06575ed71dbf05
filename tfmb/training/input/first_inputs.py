"""Inputs to build a model with, none of which is drawn from the data that it trains on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfmb.backend import keras, tf
from tfmb.training.input.elements import of_any_size

__all__ = ["FirstInputs", "symbols_of", "zeros_of"]


@dataclass(frozen=True, kw_only=True)
class FirstInputs:
    """The first inputs, which an unbuilt model is built with.

    A batch that is drawn to be looked at is missing from the training, and a seeded shuffle gives the next iterator
    another order. So a batch is read only if its shape is known in no other way.

    Attributes:
        spec: gives the specs of the inputs of a batch.
        read: gives inputs of the data, `[rows, ...]`.
    """

    spec: Callable[[], Any]
    read: Callable[[], Any]

    def numbers(self) -> Any:
        """A row of zeros where all shapes are known, else inputs that are read."""
        spec = self.spec()
        return zeros_of(spec) if all(map(_is_known, keras.tree.flatten(spec))) else self.read()


def symbols_of(spec: Any) -> Any:
    """Keras's symbols of a spec, of any number of rows: a nested model keeps the shape that it was built with.

    Raises:
        NotImplementedError: a symbol would stand for another kind of tensor.
    """
    return keras.tree.map_structure(_symbol, of_any_size(spec), none_is_leaf=False)


def zeros_of(spec: Any) -> Any:
    """A row of zeros, or of empty texts, of each tensor of an element spec."""
    return keras.tree.map_structure(_zeros, of_any_size(spec), none_is_leaf=False)


def _is_known(spec: Any) -> bool:
    if isinstance(spec, tf.RaggedTensorSpec):
        return True  # whatever its rows are, an empty one is of this kind
    return spec is None or (spec.shape.rank is not None and None not in spec.shape.as_list()[1:])


def _symbol(spec: Any) -> Any:
    if not isinstance(spec, tf.TensorSpec):
        raise NotImplementedError("a symbol would stand for another kind of tensor")
    return keras.KerasTensor(tuple(spec.shape), spec.dtype.name)


def _zeros(spec: Any) -> Any:
    """A row of a batch of a spec."""
    shape = [1, *(size or 1 for size in spec.shape[1:])]
    dense = tf.fill(shape, "") if spec.dtype == tf.string else tf.zeros(shape, spec.dtype)
    if isinstance(spec, tf.SparseTensorSpec):
        return tf.sparse.from_dense(dense)
    if isinstance(spec, tf.RaggedTensorSpec):
        return tf.RaggedTensor.from_tensor(dense, ragged_rank=spec.ragged_rank, row_splits_dtype=spec.row_splits_dtype)
    return dense
