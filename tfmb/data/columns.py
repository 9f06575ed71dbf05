"""Examples that no array holds: ragged and sparse tensors, which stay what they are, by the numbers of their rows.

A row of a `tf.RaggedTensor` has a length of its own, and one of a `tf.SparseTensor` a few entries. Rows of both can be
gathered in any order, so the order is `Order`'s, as for arrays.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.data.records import Records
from tfmb.data.source import check_lengths, check_values, digest_of, leaves_of

__all__ = ["Columns", "SparseRows"]


class SparseRows:
    """The rows of a `tf.SparseTensor`, each with its own entries.

    Args:
        tensor: of a known shape except for its rows.

    Attributes:
        shape: of the dense tensor, its rows first.
        dtype: of its values.
    """

    def __init__(self, tensor: Any) -> None:
        tensor = tf.sparse.reorder(tensor)
        rows = tf.RaggedTensor.from_value_rowids
        size, numbers = tensor.dense_shape[0], tensor.indices[:, 0]
        self._places = rows(tensor.indices[:, 1:], numbers, size)
        self._values = rows(tensor.values, numbers, size)
        self.shape, self.dtype = tensor.shape, tensor.dtype

    def __len__(self) -> int:
        return int(self._values.nrows())

    def __getitem__(self, rows: slice) -> "SparseRows":
        found = object.__new__(SparseRows)
        found._places, found._values, found.dtype = self._places[rows], self._values[rows], self.dtype
        found.shape = tf.TensorShape([found._values.nrows(), *self.shape[1:]])
        return found

    def gather(self, numbers: Any) -> Any:
        """The `tf.SparseTensor` of rows `[batch]`."""
        places, values = tf.gather(self._places, numbers), tf.gather(self._values, numbers)
        indices = tf.concat([values.value_rowids()[:, tf.newaxis], places.flat_values], 1)
        shape = [tf.cast(values.nrows(), tf.int64), *(tf.constant(size, tf.int64) for size in self.shape[1:])]
        return tf.SparseTensor(indices, values.flat_values, tf.stack(shape))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All its arrays, by names."""
        return {
            "values": self._values.flat_values.numpy(),
            "places": self._places.flat_values.numpy(),
            "splits": self._values.row_splits.numpy(),
            "shape": np.array(self.shape[1:], np.int64),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """Examples, labels and weights row by row, some of them ragged or sparse.

    Attributes:
        examples: NumPy arrays, `tf.RaggedTensor`s and `SparseRows` in any structure, None for one that is not there.
        labels: the same.
        sample_weight: the same.
        name: the data's name in errors.

    Raises:
        DataError: they make no sense: see `Source.from_arrays`.
    """

    examples: Any = field(repr=False)
    labels: Any = field(repr=False)
    sample_weight: Any = field(repr=False)
    name: str

    def __post_init__(self) -> None:
        lengths = {key: _length(leaf) for key, leaf in self._leaves.items()}
        check_lengths(lengths, self.name, bool(leaves_of(self.examples, None, None)))
        for key, leaf in self._leaves.items():
            check_values(next(iter(_arrays(leaf).values())), key, self.name)

    @property
    def size(self) -> int:
        """The number of examples."""
        return int(_length(next(iter(self._leaves.values()))) or 0)

    def rows(self, index: slice, name: str | None = None) -> "Columns":
        """Returns only some of the rows."""
        parts = [
            keras.tree.map_structure(lambda leaf: leaf[index], part, none_is_leaf=False)
            for part in (self.examples, self.labels, self.sample_weight)
        ]
        return Columns(examples=parts[0], labels=parts[1], sample_weight=parts[2], name=name or self.name)

    def records(self) -> Records:
        """The same examples by their numbers."""
        absent: tuple[Any, ...] = ()
        with tf.device("/cpu:0"):
            parts = tuple(
                absent if part is None else keras.tree.map_structure(_held, part, none_is_leaf=False)
                for part in (self.examples, self.labels, self.sample_weight)
            )

        def read(numbers: Any) -> Any:
            batch = keras.tree.map_structure(lambda leaf: _gathered(leaf, numbers), parts, none_is_leaf=False)
            return keras.tree.lists_to_tuples(batch)

        return Records(
            size=self.size,
            element_spec=keras.tree.map_structure(_spec_of_a_row, parts, none_is_leaf=False),
            name=self.name,
            fingerprint=self._fingerprint,
            read=read,
            dense=False,
        )

    @property
    def _leaves(self) -> dict[str, Any]:
        return leaves_of(self.examples, self.labels, self.sample_weight)

    @property
    def _fingerprint(self) -> str:
        parts = {"x": self.examples, "y": self.labels, "sample_weight": self.sample_weight}
        arrays = {f"{key} {name}": array for key, leaf in self._leaves.items() for name, array in _arrays(leaf).items()}
        return digest_of(parts, arrays)


def _length(leaf: Any) -> int | None:
    if isinstance(leaf, tf.RaggedTensor):
        return int(leaf.nrows())
    return len(leaf) if len(leaf.shape) else None


def _arrays(leaf: Any) -> dict[str, np.ndarray]:
    """The arrays that a leaf is made of, its values first."""
    if isinstance(leaf, SparseRows):
        return leaf.arrays
    if isinstance(leaf, tf.RaggedTensor):
        values = leaf.flat_values.numpy()
        return {"values": values} | {f"splits {i}": part.numpy() for i, part in enumerate(leaf.nested_row_splits)}
    return {"array": leaf}


def _held(leaf: Any) -> Any:
    return tf.constant(leaf) if isinstance(leaf, np.ndarray) else leaf


def _gathered(leaf: Any, numbers: Any) -> Any:
    return leaf.gather(numbers) if isinstance(leaf, SparseRows) else tf.gather(leaf, numbers)


def _spec_of_a_row(leaf: Any) -> Any:
    """Returns the spec of one row, for those that describe the data: a row of a tensor of rows is a tensor."""
    return tf.TensorSpec(leaf.shape[1:], leaf.dtype)
