"""Converts arrays of any kind to NumPy arrays; ragged and sparse tensors stay what they are if they may."""

from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.data.columns import SparseRows
from tfmb.errors import ConfigError, DataError
from tfmb.types import DType

__all__ = ["to_arrays"]


def to_arrays(tree: Any, name: str, keep: bool = False) -> Any:
    """A structure of arrays `[n, ...]`.

    Args:
        tree: NumPy arrays, tensors, pandas objects, lists of numbers or texts in any list, tuple or dict; None for what
            is not there.
        name: the data's name in errors.
        keep: whether ragged and sparse tensors may be among them, the latter as `SparseRows`.

    Returns:
        The same structure. Floats have the dtype `keras.config.floatx()`, as in `fit`; other dtypes stay.

    Raises:
        ConfigError: a ragged or sparse tensor that is not kept.
        DataError: something that is no array.
    """
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: to_arrays(value, f"{name}[{key!r}]", keep) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)) and tree and not _is_plain(tree):
        found = [to_arrays(value, f"{name}[{index}]", keep) for index, value in enumerate(tree)]
        return type(tree)(*found) if hasattr(tree, "_fields") else type(tree)(found)
    return _to_array(tree, name, keep)


def _is_plain(tree: Any) -> bool:
    """Whether nested lists are the rows of one array of plain numbers or texts."""
    while isinstance(tree, (list, tuple)) and tree:
        tree = tree[0]
    return bool(np.isscalar(tree)) or isinstance(tree, (list, tuple))


def _to_array(value: Any, name: str, keep: bool) -> Any:
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)) or hasattr(value, "tocoo"):
        if not keep:
            raise ConfigError(f"{name} is a {type(value).__name__}: make it dense, or give a tf.data.Dataset")
        return _to_rows(value)
    if hasattr(value, "to_numpy"):  # pandas: a series is one column
        array = value.to_numpy()
        array = array[:, np.newaxis] if array.ndim == 1 and hasattr(value, "iloc") else array
    else:
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, RuntimeError) as error:
            raise DataError(f"{name} is no array of numbers: {' '.join(str(error).split())}") from error
    return array.astype(keras.config.floatx(), copy=False) if _is_float(array.dtype) else array


def _to_rows(value: Any) -> Any:
    """A ragged or sparse tensor whose floats are Keras's."""
    if hasattr(value, "tocoo"):
        rows = value.tocsr().tocoo()  # entries by rows, each once
        value = tf.SparseTensor(np.stack([rows.row, rows.col], 1).astype(np.int64), rows.data, rows.shape)
    value = tf.cast(value, keras.config.floatx()) if value.dtype.is_floating else value
    return SparseRows(value) if isinstance(value, tf.SparseTensor) else value


def _is_float(dtype: DType) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"
