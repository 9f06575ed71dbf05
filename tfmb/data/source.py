"""`Source`: examples and labels in memory, with their name and fingerprint. `Splits`: a train and a test one."""

import contextlib
import contextvars
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfmb.errors import ConfigError, DataError
from tfmb.types import Data

__all__ = [
    "Normalization",
    "Source",
    "Splits",
    "any_numbers",
    "check_lengths",
    "check_values",
    "digest_of",
    "leaves_of",
]

_any_numbers = contextvars.ContextVar("any_numbers", default=False)


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """The normalization of pixels scaled to [0, 1]: (pixel / 255 - mean) / std.

    Example:
        >>> tfmb.data.Normalization.measure(np.array([[0, 255]], "uint8"))
        Normalization(mean=0.5, std=0.5)
    """

    mean: float
    std: float

    @classmethod
    def measure(cls, images: np.ndarray) -> "Normalization":
        """The mean and standard deviation of all pixels of uint8 `images`, rounded to 4 digits."""
        counts = np.bincount(images.reshape(-1), minlength=256).astype(np.float64)
        pixels = np.arange(256) / 255.0
        mean = float(counts @ pixels / counts.sum())
        std = float(np.sqrt(counts @ (pixels - mean) ** 2 / counts.sum()))
        return cls(mean=round(mean, 4), std=round(std, 4) or 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Examples and their labels, row by row.

    Attributes:
        examples: an array `[n, ...]`, or a list, tuple or dict of such arrays (several inputs), None for absent ones.
            Texts that came as objects are their bytes.
        labels: an array `[n, ...]`, or a structure of such arrays (several outputs).
        num_classes: labels are integers in `[0, num_classes)`; None if they are not classes.
        name: the data's name in the run's record.
        fingerprint: SHA-256 over the structure, dtypes, shapes and bytes of all arrays.
        sample_weight: None, an array `[n]`, or one such array an output.

    Example:
        >>> source = tfmb.data.Source.from_arrays({"age": np.array([30, 40]), "city": np.array([1, 0])}, [0, 1])
        >>> source.size
        2
    """

    examples: Any = field(repr=False)
    labels: Any = field(repr=False)
    num_classes: int | None
    name: str
    fingerprint: str
    sample_weight: Any = field(default=None, repr=False)

    @classmethod
    def from_arrays(
        cls,
        x: Data,
        y: Data,
        sample_weight: Data = None,
        *,
        num_classes: int | None = None,
        name: str = "arrays",
    ) -> "Source":
        """Checks arrays of any structure and makes a `Source` of them.

        Args:
            x: an array `[n, ...]`, or a list, tuple or dict of them.
            y: the same for the targets; None if the model itself knows its loss.
            sample_weight: None, or weights `[n]` (a structure of them for several outputs).
            num_classes: if given, `y` must be integers in `[0, num_classes)`.
            name: the data's name in error messages and records.

        Returns:
            The source; arrays that are NumPy arrays already are not copied.

        Raises:
            DataError: no examples, unequal lengths, NaN or infinite values, a dtype that is neither number nor text,
                or labels out of range.
        """
        try:
            x, y, sample_weight = (_map(_as_array, part) for part in (x, y, sample_weight))
        except ValueError as error:
            raise DataError(f"{name}: rows of unequal length make no array: {error}") from error
        leaves = leaves_of(x, y, sample_weight)
        lengths = {key: len(leaf) if leaf.ndim else None for key, leaf in leaves.items()}
        check_lengths(lengths, name, bool(_leaves(x, "x")))
        for key, leaf in leaves.items():
            check_values(leaf, key, name)
        if num_classes is not None:
            _check_labels(y, num_classes, name)
        return cls(
            examples=x,
            labels=y,
            num_classes=num_classes,
            name=name,
            fingerprint=digest_of({"x": x, "y": y, "sample_weight": sample_weight}, leaves),
            sample_weight=sample_weight,
        )

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        """`(examples, labels, sample_weight)`, with an empty tuple for an absent one."""
        labels = () if self.labels is None else self.labels
        return self.examples, labels, () if self.sample_weight is None else self.sample_weight

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(next(iter(_leaves(self.examples, "x").values())))

    def rows(self, index: slice | np.ndarray, name: str | None = None) -> "Source":
        """The source of some rows only; its fingerprint is that of the rows."""

        def take(part: Any) -> Any:
            return _map(lambda leaf: leaf[index], part)

        return Source.from_arrays(
            take(self.examples),
            take(self.labels),
            take(self.sample_weight),
            num_classes=self.num_classes,
            name=name or self.name,
        )

    def hold_out(self, size: int) -> tuple["Source", "Source"]:
        """Parts `size` examples from the rest, always the same ones whatever the run's seed.

        Returns:
            The rest, and those held out; both in the order they had.

        Raises:
            ConfigError: nothing would be left on one side.
        """
        if not 0 < size < self.size:
            raise ConfigError(
                f"validation size {size} must be between 1 and {self.size - 1}, one less than the examples"
            )
        # Drawn from the names of the rows: no generator's stream can change under us.
        names = [hashlib.sha256(f"hold out {row}".encode()).digest() for row in range(self.size)]
        chosen = np.sort(np.array(sorted(range(self.size), key=names.__getitem__)[:size]))
        rest = np.setdiff1d(np.arange(self.size), chosen)
        return self.rows(rest), self.rows(chosen, name=f"{self.name} (validation)")

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """`(height, width, channels)` where the examples are uint8 images, else None."""
        x = self.examples
        if isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 4:
            return x.shape[1], x.shape[2], x.shape[3]
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """The splits of a dataset, as a run uses them.

    Attributes:
        train: the training examples (`--validation-size` holds some of them out).
        test: scored once, at the end; None if the user's own data has none.
        normalization: the model's first step on pixels; None for anything but uint8 images.
        epochs: the number of epochs of the reference recipe on this dataset.
        origin: one line that says where the data came from.

    Example:
        >>> train = tfmb.data.Source.from_arrays(x_train, y_train)
        >>> splits = tfmb.data.Splits(train=train, test=None, normalization=None, epochs=5, origin="measured on Monday")
    """

    train: Source
    test: Source | None
    normalization: Normalization | None
    epochs: int
    origin: str


def _check_labels(labels: Any, num_classes: int, name: str) -> None:
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or not labels.size:
        raise DataError(f"{name}: class labels must be one array of integers")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        bad = low if low < 0 else high
        raise DataError(f"{name}: label {bad} is out of range [0, {num_classes}): mend the labels")


def leaves_of(x: Data, y: Data, sample_weight: Data) -> dict[str, Any]:
    """Returns the leaves of the three structures, by the names that errors use."""
    return {**_leaves(x, "x"), **_leaves(y, "y"), **_leaves(sample_weight, "sample_weight")}


def check_lengths(lengths: dict[str, int | None], name: str, has_inputs: bool) -> None:
    """Refuses what has no row for each example.

    Args:
        lengths: the number of rows of each array, None for a scalar.
        name: the data's name in errors.
        has_inputs: whether some of them are inputs.

    Raises:
        DataError: so it is.
    """
    if not has_inputs:
        raise DataError(f"{name}: x is needed: give one array at least")
    if None in lengths.values():
        raise DataError(f"{name}: an array is a scalar: give arrays whose first axis is the examples")
    if len(set(lengths.values())) != 1:
        found = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise DataError(f"{name}: arrays of unequal length ({found}): give one row for each example")
    if not next(iter(lengths.values())):
        raise DataError(f"{name}: there are no examples: give at least one")


@contextlib.contextmanager
def any_numbers(allowed: bool) -> Iterator[None]:
    """Allows numbers of data that are not finite inside the `with` block, if `allowed`."""
    before = _any_numbers.set(allowed)
    try:
        yield
    finally:
        _any_numbers.reset(before)


def check_values(array: np.ndarray, key: str, name: str) -> None:
    """Refuses values that are not finite, but within `any_numbers`, and those that are neither numbers nor texts.

    Raises:
        DataError: so it is.
    """
    if not _any_numbers.get() and array.dtype.kind in "fc" and not np.isfinite(array).all():
        raise DataError(f"{name}: {key} holds NaN or infinite values: remove or replace them")
    if array.dtype.kind not in "fciubSU" and not _is_text(array):
        raise DataError(f"{name}: {key} has dtype {array.dtype}: give numbers or strings")


def digest_of(trees: dict[str, Any], leaves: dict[str, np.ndarray]) -> str:
    """SHA-256 over the structure of trees, and the names, dtypes, shapes and bytes of their leaves."""
    digest = hashlib.sha256(_structure(trees).encode())
    for key, leaf in sorted(leaves.items()):
        digest.update(f"{key} {leaf.dtype.str} {leaf.shape}\n".encode())
        if leaf.dtype == object:  # whose own bytes are addresses
            digest.update(np.array([len(text) for text in leaf.flat], np.int64).data)
            digest.update(b"".join(leaf.flat))
        else:
            digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def _as_array(value: Any) -> np.ndarray:
    """Returns the value as an array; objects that are all texts become an array of bytes."""
    array = np.asarray(value)
    if array.dtype != object or not all(isinstance(each, (str, bytes)) for each in array.flat):
        return array
    encoded = (each.encode() if isinstance(each, str) else each for each in array.flat)
    return np.fromiter(encoded, object, array.size).reshape(array.shape)


def _is_text(array: np.ndarray) -> bool:
    return array.dtype == object and all(isinstance(each, bytes) for each in array.flat)


def _map(function: Any, tree: Any) -> Any:
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: _map(function, value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)) and not _is_plain(tree):
        mapped = [_map(function, value) for value in tree]
        if hasattr(tree, "_fields"):
            return type(tree)(*mapped)
        return mapped if isinstance(tree, list) else tuple(mapped)
    return function(tree)


def _is_plain(tree: Any) -> bool:
    """Whether this list holds numbers: it is one array then, as a user would expect."""
    return bool(tree) and tree[0] is not None and not hasattr(tree[0], "__len__")


def _leaves(tree: Any, key: str) -> dict[str, np.ndarray]:
    if tree is None:
        return {}
    if isinstance(tree, dict):
        items: Any = ((f"{key}[{name!r}]", value) for name, value in tree.items())
    elif isinstance(tree, (list, tuple)):
        items = ((f"{key}[{index}]", value) for index, value in enumerate(tree))
    else:
        return {key: tree}
    return {name: leaf for path, value in items for name, leaf in _leaves(value, path).items()}


def _structure(tree: Any) -> str:
    """A text for the shape of a structure, in which the order of a dict's keys does not count."""
    if isinstance(tree, dict):
        return "{" + ",".join(sorted(f"{key!r}:{_structure(value)}" for key, value in tree.items())) + "}"
    if isinstance(tree, (list, tuple)):
        return "[" + ",".join(map(_structure, tree)) + "]"
    return "-" if tree is None else "*"
