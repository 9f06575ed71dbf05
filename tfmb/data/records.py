"""Examples read by their number while training goes on: data larger than memory, in bounded memory.

Examples come from a source with random access: `len(source)`, and `source[i]` (or `source.__getitems__([i, j])`), as
`tfds.data_source`, Grain's sources and PyTorch's map-style datasets have them. Any order costs the same, so the order
is `Order`'s: a fair permutation an epoch without a shuffle buffer, and the next batch known after any kill.
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.errors import DataError
from tfmb.types import Data

__all__ = ["Records", "has_random_access", "telling_what_cannot_be_read"]

# Examples that the fingerprint reads: of all, it would read the disk once before the first update.
_FINGERPRINTED = 64
_FAILED = re.compile(r"example \d+ of [^\n]* cannot be read \([^\n]*\): mend the source")
# What Python's own part of a pipeline raised, in the words of TensorFlow, which names that part.
_RAISED = re.compile(
    r"(?:^|\n|\}\} )([A-Za-z_][\w.]*: .*?)\nTraceback \(most recent call last\):.*generator_py_func", re.DOTALL
)


def has_random_access(x: Data) -> bool:
    """Whether `x` is a source of examples by number, and not an array of any kind."""
    is_array = isinstance(x, (str, bytes, list, tuple, dict)) or hasattr(x, "__array__") or hasattr(x, "to_numpy")
    is_array = is_array or hasattr(x, "tocoo")  # SciPy's sparse matrices
    if is_array or isinstance(x, keras.utils.PyDataset) or tf.is_tensor(x):
        return False
    return hasattr(x, "__len__") and hasattr(x, "__getitem__")


@contextlib.contextmanager
def telling_what_cannot_be_read() -> Iterator[None]:
    """Raises our own error about a source or a generator, if its failure is why TensorFlow fails."""
    try:
        yield
    except tf.errors.OpError as error:
        if found := _FAILED.search(str(error)):
            raise DataError(found.group()) from error
        if found := _RAISED.search(str(error)):
            what = " ".join(found.group(1).split())[:200]
            raise DataError(f"the data cannot be read ({what}): mend what yields it") from error
        raise


@dataclass(frozen=True, kw_only=True, eq=False)
class Records:
    """Examples by their number.

    Attributes:
        size: the number of examples.
        element_spec: `(x, y, sample_weight)` of one example, in any structure; `()` for no weight.
        name: the data's name in errors and records.
        fingerprint: SHA-256 over their number, `element_spec`, and the bytes of up to 64 of them, evenly spaced.
        read: int64 tensor `[batch]` -> the batch `(x, y, sample_weight)`; for `tf.data.Dataset.map`.
        dense: whether all in a batch are dense tensors.
    """

    size: int
    element_spec: Any
    name: str
    fingerprint: str
    read: Callable[[Any], Any] = field(repr=False)
    dense: bool = True

    @classmethod
    def from_source(cls, source: Any, name: str = "x") -> "Records":
        """Looks at a few examples and makes `Records` of them all.

        Args:
            source: see `has_random_access`. An example is `(x, y)` or `(x, y, sample_weight)` with `x` and `y` numbers,
                arrays or structures of them, each of one shape in all examples; or a dict of features, if the source
                has TFDS's `dataset_info` with `supervised_keys`.
            name: the data's name in errors.

        Raises:
            DataError: it is empty, cannot be read, or has examples of another kind.
        """
        size = len(source)
        if not size:
            raise DataError(f"{name}: there are no examples: give at least one")
        reader = _Reader(source, name)
        numbers = np.unique(np.linspace(0, size - 1, min(size, _FINGERPRINTED)).astype(np.int64))
        leaves = reader.rows(numbers)
        spec = keras.tree.pack_sequence_as(
            reader.structure, [tf.TensorSpec(leaf.shape[1:], tf.as_dtype(leaf.dtype)) for leaf in leaves]
        )
        digest = hashlib.sha256(f"{size} {spec}".encode())
        for leaf in leaves:
            digest.update(leaf.tobytes())
        read = _tfds_read(source) or reader.read
        return cls(size=size, element_spec=spec, name=name, fingerprint=digest.hexdigest(), read=read)

    def weighted(self, weigh: Callable[..., Any]) -> "Records":
        """The same examples, each batch `(x, y)` changed to `(x, y, sample_weight)`."""
        return replace(self, read=lambda numbers: weigh(*self.read(numbers)[:2]))


class _Reader:
    """Reads any source in Python: some examples at a time, stacked.

    Attributes:
        structure: of an example; known once some were read.
    """

    def __init__(self, source: Any, name: str) -> None:
        self._source, self._name = source, name
        self._keys = getattr(getattr(source, "dataset_info", None), "supervised_keys", None)
        self.structure: Any = None
        self._dtypes: list[Any] = []

    def rows(self, numbers: np.ndarray) -> list[np.ndarray]:
        """The leaves of some examples, each `[len(numbers), ...]`; floats in Keras's float type."""
        examples, number = [], int(numbers[0])
        try:
            if hasattr(self._source, "__getitems__"):
                examples = [self._example(found) for found in self._source.__getitems__([int(n) for n in numbers])]
            else:
                for number in map(int, numbers):
                    examples.append(self._example(self._source[number]))
            if self.structure is None:
                self.structure = examples[0]
            leaves = zip(*(keras.tree.flatten(example) for example in examples), strict=True)
            return [_stacked(leaf) for leaf in leaves]
        except Exception as error:  # whatever the user's source raises
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise DataError(f"example {number} of {self._name} cannot be read ({what}): mend the source") from error

    def read(self, numbers: Any) -> Any:
        """Reads a batch: see `Records`."""
        first = self.rows(np.zeros(1, np.int64))
        leaves = tf.numpy_function(self.rows, [numbers], [leaf.dtype for leaf in first], stateful=False)
        shaped = [tf.ensure_shape(leaf, [None, *one.shape[1:]]) for leaf, one in zip(leaves, first, strict=True)]
        return keras.tree.lists_to_tuples(keras.tree.pack_sequence_as(self.structure, shaped))

    def _example(self, found: Any) -> tuple[Any, Any, Any]:
        if isinstance(found, dict) and self._keys:
            return found[self._keys[0]], found[self._keys[1]], ()
        if not isinstance(found, (tuple, list)) or len(found) not in (2, 3):
            raise TypeError(f"an example is (x, y) or (x, y, sample_weight), not {type(found).__name__}")
        return found[0], found[1], found[2] if len(found) == 3 else ()


def _stacked(values: tuple[Any, ...]) -> np.ndarray:
    array = np.stack([np.asarray(value) for value in values])
    if array.dtype.kind not in "fiub":
        raise TypeError(f"dtype {array.dtype} is no number")
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array


def _tfds_read(source: Any) -> Callable[[Any], Any] | None:
    """Returns the read function of a prepared TFDS source: bytes read in Python, decoded by TensorFlow's threads."""
    records: Any = getattr(source, "data_source", None)
    info = getattr(source, "dataset_info", None)
    method = getattr(getattr(source, "deserialize_method", None), "name", "")
    if not hasattr(records, "__getitems__") or info is None or not info.supervised_keys:
        return None
    if getattr(source, "decoders", None) is not None or method != "DESERIALIZE_AND_DECODE":
        return None
    features, (image, label) = info.features, info.supervised_keys[:2]

    def serialized(numbers: np.ndarray) -> Any:
        try:
            return np.array(records.__getitems__([int(number) for number in numbers]), object)
        except Exception as error:  # a damaged file raises whatever its reader does
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            text = f"example {int(numbers[0])} of {info.full_name} cannot be read ({what}): mend the source"
            raise DataError(text) from error

    def decode(record: Any) -> Any:
        found = features.deserialize_example(record)
        return found[image], found[label]

    def in_float(tensor: Any) -> Any:
        return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor

    def read(numbers: Any) -> Any:
        found = tf.ensure_shape(tf.numpy_function(serialized, [numbers], tf.string, stateful=False), [None])
        spec = features.get_tensor_spec()
        pair = tf.map_fn(decode, found, fn_output_signature=(spec[image], spec[label]))
        return (*keras.tree.map_structure(in_float, pair), ())

    return read
