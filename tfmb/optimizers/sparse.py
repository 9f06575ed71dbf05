"""Gradients of rows, such as an embedding's: `tf.IndexedSlices`, a row for each time that it was looked up.

The gradient is the sum over equal indices. Keras's optimizers work on the rows as they are: norms, limits and squares
are those of each occurrence. Where one of our rules stands for Keras's it does the same.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from tfmb.backend import tf
from tfmb.errors import ConfigError
from tfmb.types import Tensor, Variable

__all__ = [
    "WithSquare",
    "dense",
    "limited",
    "on_values",
    "scaled",
    "square_besides",
    "square_sum",
    "squared",
    "values_of",
]


class WithSquare(NamedTuple):
    """A gradient whose equal rows were added up already, as over the parts of a batch, and the sum of their squares."""

    gradient: Any
    square: Any


def values_of(gradient: Tensor) -> Any:
    """Returns the entries of a gradient; those of every occurrence of a row, if they are known apart."""
    if isinstance(gradient, WithSquare):
        return gradient.gradient
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def square_sum(gradient: Tensor) -> Any:
    """The sum of the squares of all entries, of every occurrence of a row."""
    return tf.reduce_sum(gradient.square if isinstance(gradient, WithSquare) else tf.square(values_of(gradient)))


def scaled(gradient: Tensor, factor: Any) -> Any:
    """A gradient times a scalar."""
    if isinstance(gradient, WithSquare):
        return WithSquare(gradient.gradient * factor, gradient.square * factor**2)
    return on_values(lambda values: values * factor, gradient)


def limited(gradient: Tensor, value: float) -> Any:
    """A gradient with every entry in [-value, value].

    Raises:
        ConfigError: rows were added up before each of them could be limited.
    """
    if isinstance(gradient, WithSquare):
        raise ConfigError(
            "clipvalue of a Keras optimizer clips each occurrence of an embedding's row, but in a cut batch the "
            "occurrences are added up first: use clipnorm, one of tfmb.optimizers, or one device without "
            "virtual_replicas and micro_batch_size"
        )
    return on_values(lambda values: tf.clip_by_value(values, -value, value), gradient)


def on_values(function: Callable[[Any], Any], gradient: Tensor) -> Any:
    """A gradient with a function applied to its entries."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(function(gradient.values), gradient.indices, gradient.dense_shape)
    return function(gradient)


def dense(gradient: Tensor, shape: Any = None) -> Any:
    """Returns the gradient with equal rows added up; `shape` is its own if it is None."""
    if isinstance(gradient, WithSquare):
        return gradient.gradient
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    if shape is None:
        shape = tf.TensorShape(tf.get_static_value(gradient.dense_shape))
    rows = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, shape[0])
    return tf.ensure_shape(rows, shape)


def squared(gradient: Tensor, shape: Any) -> Any:
    """The square of a gradient; of rows the sum over the squares of each occurrence, as in Keras."""
    if isinstance(gradient, WithSquare):
        return gradient.square
    return dense(on_values(tf.square, gradient), shape)


def square_besides(gradient: Tensor, variable: Variable) -> Any:
    """The square of a gradient of rows, in the variable's dtype; None for a gradient whose square is its own."""
    if not isinstance(gradient, (tf.IndexedSlices, WithSquare)):
        return None
    return tf.cast(squared(gradient, variable.shape), variable.dtype)
