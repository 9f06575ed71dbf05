"""`fit`'s data arguments -> feeds: what Keras accepts as arrays, split and weighted as Keras does."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.data.augment import Augmentation
from tfmb.data.batches import Order
from tfmb.data.records import Records, has_random_access
from tfmb.data.source import Source
from tfmb.errors import ConfigError, DataError
from tfmb.training.feeds import ArrayFeed, DatasetFeed, Feed

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "make_feed",
    "split_validation",
    "to_source",
    "train_and_validation",
    "validation_feed",
    "verbose_level",
]

DEFAULT_BATCH_SIZE = 32


def to_source(x: Any, y: Any, sample_weight: Any = None, name: str = "x") -> Source | Records:
    """The user's arrays as a `Source`, or what is read by number as `Records`.

    Args:
        x: NumPy arrays, tensors, lists of numbers or pandas objects `[n, ...]`, in any list, tuple or dict; or a source
            of whole examples: see `Records.from_source`.
        y: the same for the targets; None for such a source, and where the model itself knows its loss.
        sample_weight: None, or weights `[n]`, by output where there are several.
        name: what error messages call `x`.

    Returns:
        The source. Floats have the dtype `keras.config.floatx()`, as in `fit`; other dtypes stay.

    Raises:
        ConfigError: a kind of data that is not supported.
        DataError: arrays that make no sense.
    """
    if has_random_access(x):
        if y is not None or sample_weight is not None:
            given = "sample_weight" if y is None else "y"
            raise ConfigError(f"{given} cannot be given with a {type(x).__name__}, which holds whole examples")
        return Records.from_source(x, name)
    arrays = (_to_arrays(part, label) for part, label in ((x, name), (y, "y"), (sample_weight, "sample_weight")))
    return Source.from_arrays(*arrays, name=name)


def split_validation(source: Source, validation_split: float) -> tuple[Source, Source]:
    """The first and the last `validation_split` of the rows, as `fit` cuts them (before any shuffling).

    Raises:
        ConfigError: the share is not in (0, 1), or leaves one side empty.
    """
    at = math.floor(source.size * (1.0 - validation_split))
    if not 0 < validation_split < 1 or at in (0, source.size):
        raise ConfigError(
            f"validation_split={validation_split!r} of {source.size} examples leaves no training or no validation "
            "examples: give a share between 0 and 1"
        )
    return source.rows(slice(0, at)), source.rows(slice(at, None), name=f"{source.name} (validation)")


def train_and_validation(source: Source, validation_data: Any, validation_split: float) -> tuple[Source, Source]:
    """(what is learned, what is looked at): `validation_data` as `(x, y)`, or a share that is held out, drawn once.

    Raises:
        ConfigError: it is no pair, or the share is not between 0 and 1.
    """
    if validation_data is None:
        if not 0 < validation_split < 1:
            raise ConfigError(f"validation_split={validation_split!r} must be a share between 0 and 1")
        return source.hold_out(max(1, round(validation_split * source.size)))
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
        raise ConfigError("validation_data must be (x, y)")
    found = to_source(validation_data[0], validation_data[1], name="validation_data")
    if not isinstance(found, Source):
        raise ConfigError("validation_data must be arrays")
    return source, found


def make_feed(
    x: Any, y: Any, sample_weight: Any, class_weight: Any, batch_size: int | None, *, seed: int, shuffle: bool,
    steps_per_epoch: int | None, initial_epoch: int, validation_split: float, augmentation: Augmentation | None = None,
) -> tuple[Feed, Source | Records | None, Source | None]:  # fmt: skip
    """The training batches of `fit`'s arguments.

    Returns:
        The feed, its source (None for a dataset), and the validation source that was split off, or None.

    Raises:
        ConfigError: arguments that contradict each other or are not supported.
        DataError: arrays that make no sense.
    """
    if isinstance(x, tf.data.Dataset):
        given = {
            "y": y is not None,
            "sample_weight": sample_weight is not None,
            "batch_size": batch_size is not None,
            "validation_split": bool(validation_split),
            "augment": augmentation is not None,
        }
        for argument, is_given in given.items():
            if is_given:
                raise ConfigError(f"{argument} cannot be given with a tf.data.Dataset, which is batched and complete")
        if class_weight is not None and not (isinstance(x.element_spec, tuple) and len(x.element_spec) == 2):
            raise ConfigError("class_weight needs a dataset of (x, y), with targets and without sample weights")
        dataset = x if class_weight is None else x.map(_class_weighter(class_weight))
        return DatasetFeed(dataset, steps_per_epoch), None, None
    refuse_streams(x, "x")
    source = to_source(x, y, sample_weight)
    held_out = None
    if validation_split:
        if isinstance(source, Records):
            raise ConfigError(f"validation_split needs arrays: give validation_data, another {type(x).__name__}")
        source, held_out = split_validation(source, validation_split)
    if class_weight is not None:  # for training only: validation is scored without, as in Keras
        if isinstance(source, Records):
            source = source.weighted(_class_weighter(class_weight))
        else:
            source = replace(source, sample_weight=_weights_of_classes(source, class_weight))
    size = DEFAULT_BATCH_SIZE if batch_size is None else batch_size
    order = Order(num_examples=source.size, batch_size=size, seed=seed, shuffle=shuffle)
    return ArrayFeed(source, order, steps_per_epoch, initial_epoch, augmentation), source, held_out


def validation_feed(data: Any, batch_size: int | None, steps: int | None) -> Feed:
    """The validation batches of `validation_data`: `(x, y)`, `(x, y, sample_weight)`, a source or a dataset.

    Raises:
        ConfigError: something else.
    """
    if isinstance(data, tf.data.Dataset):
        return DatasetFeed(data, steps, name="validation_data", steps_name="validation_steps")
    if has_random_access(data) and not isinstance(data, (Source, Records)):
        data = Records.from_source(data, "validation_data")
    if not isinstance(data, (Source, Records)):
        refuse_streams(data, "validation_data")
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise ConfigError("validation_data must be (x, y), (x, y, sample_weight) or a tf.data.Dataset")
        x, y, *sample_weight = data
        data = to_source(x, y, sample_weight[0] if sample_weight else None, name="validation_data")
    size = min(DEFAULT_BATCH_SIZE if batch_size is None else batch_size, data.size)
    return ArrayFeed(data, Order(num_examples=data.size, batch_size=size, seed=0, shuffle=False), steps)


def verbose_level(verbose: Any) -> int:
    """Keras's `verbose` as 0, 1 or 2.

    Raises:
        ConfigError: something else.
    """
    if verbose not in ("auto", 0, 1, 2):
        raise ConfigError(f"verbose={verbose!r} must be 'auto', 0, 1 or 2")
    return 1 if verbose == "auto" else int(verbose)


def refuse_streams(x: Any, name: str) -> None:
    """Refuses what can be read only once or only by Keras itself."""
    is_stream = hasattr(x, "__next__") or isinstance(x, keras.utils.PyDataset) or (hasattr(x, "__iter__") and not (
        hasattr(x, "__len__") or hasattr(x, "__array__")
    ))  # fmt: skip
    if is_stream or type(x).__name__ == "DataLoader":
        raise ConfigError(f"{name} is a {type(x).__name__}: give arrays, or wrap it in tf.data.Dataset.from_generator")


def _to_arrays(tree: Any, name: str) -> Any:
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: _to_arrays(value, f"{name}[{key!r}]") for key, value in tree.items()}
    if isinstance(tree, (list, tuple)) and tree and not np.isscalar(tree[0]):
        if isinstance(tree[0], (list, tuple)):
            return _to_array(tree, name)  # rows of plain numbers
        return type(tree)(_to_arrays(value, f"{name}[{index}]") for index, value in enumerate(tree))
    return _to_array(tree, name)


def _to_array(value: Any, name: str) -> np.ndarray:
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)) or hasattr(value, "tocsr"):  # SciPy's sparse ones
        raise ConfigError(f"{name} is a {type(value).__name__}: make it dense, or give a tf.data.Dataset")
    if hasattr(value, "to_numpy"):  # pandas: a series is one column
        array = value.to_numpy()
        array = array[:, np.newaxis] if array.ndim == 1 else array
    else:
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise DataError(f"{name} is no array of numbers: {error}") from error
    return array.astype(keras.config.floatx(), copy=False) if array.dtype.kind == "f" else array


def _check_class_weight(class_weight: Any) -> dict[int, float]:
    if not isinstance(class_weight, dict) or not all(isinstance(key, (int, np.integer)) for key in class_weight):
        raise ConfigError("class_weight must be a dict from class (an int) to weight")
    try:
        return {int(key): float(weight) for key, weight in class_weight.items()}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"class_weight={class_weight!r} must have a number for each class") from error


def _weights_of_classes(source: Source, class_weight: Any) -> np.ndarray:
    if source.sample_weight is not None:
        raise ConfigError("class_weight and sample_weight cannot both be given: multiply them into sample_weight")
    weights = _check_class_weight(class_weight)
    y = source.labels
    if not isinstance(y, np.ndarray):
        raise ConfigError("class_weight needs a single output: give sample_weight for several")
    if y.ndim > 1:
        y = np.argmax(y, axis=-1) if y.shape[-1] != 1 else np.squeeze(y, axis=-1)
    classes, places = np.unique(np.round(y).astype(np.int64), return_inverse=True)
    return np.array([weights.get(int(c), 1.0) for c in classes], keras.config.floatx())[places.reshape(y.shape)]


def _class_weighter(class_weight: Any) -> Any:
    """Adds the classes' weights to the elements of a dataset."""
    weights = _check_class_weight(class_weight)
    keys = np.array([*weights, np.iinfo(np.int32).min], np.int32)
    values = np.array([*weights.values(), 1.0], keras.config.floatx())  # the last one is for all other classes

    def add(*element: Any) -> tuple[Any, Any, Any]:
        x, y = element
        classes = y
        if y.shape.rank is None or y.shape.rank > 1:
            classes = tf.argmax(y, -1) if y.shape[-1] != 1 else tf.squeeze(y, -1)
        classes = tf.cast(tf.round(tf.cast(classes, tf.float32)), tf.int32)
        matches = tf.equal(classes[..., tf.newaxis], keys)
        place = tf.where(tf.reduce_any(matches, -1), tf.argmax(tf.cast(matches, tf.int32), -1), len(keys) - 1)
        return x, y, tf.gather(tf.constant(values), place)

    return add
