"""The elements of a `tf.data.Dataset` as `(x, y, sample_weight)`, as Keras takes them apart."""

import copy
from typing import Any, NamedTuple

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.types import Batch, Data, Dataset

__all__ = [
    "WholeElement",
    "as_keras_gives_it",
    "as_they_are",
    "check_elements",
    "data_of",
    "in_parts",
    "inputs_in",
    "inputs_of",
    "of_any_size",
    "without_optionals",
]


class WholeElement(NamedTuple):
    """A dataset's whole element in the place of `x`, for a model whose own step takes it apart."""

    element: Any


def check_elements(spec: Any, name: str) -> None:
    """Refuses elements that are no batch.

    Raises:
        ConfigError: they have too many parts.
    """
    if isinstance(spec, tuple) and not 1 <= len(spec) <= 3:
        raise ConfigError(f"{name} yields {len(spec)} parts: let it yield (x, y) or (x, y, sample_weight)")


def in_parts(dataset: Dataset) -> Any:
    """A dataset of `(x, y, sample_weight)`, an empty tuple for a part that is absent, None for a tensor that is."""

    def parts(element: Any) -> tuple[Any, Any, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(element)
        return x, () if y is None else y, () if sample_weight is None else sample_weight

    return _map(without_optionals(dataset), parts)


def as_they_are(dataset: Dataset) -> Any:
    """A dataset of `(WholeElement(element), (), ())`."""
    return _map(without_optionals(dataset), lambda element: (WholeElement(element), (), ()))


def inputs_in(x: Data) -> Any:
    """The inputs in the place of `x`, whether an element has been taken apart or not."""
    return keras.utils.unpack_x_y_sample_weight(x.element)[0] if isinstance(x, WholeElement) else x


def inputs_of(dataset: Dataset) -> Any:
    """A dataset of the elements' inputs alone, packed as Keras packs them."""

    def inputs(element: Any) -> Any:
        return keras.utils.pack_x_y_sample_weight(keras.utils.unpack_x_y_sample_weight(element)[0])

    return _map(without_optionals(dataset), inputs)


def without_optionals(dataset: Dataset) -> Any:
    """Returns a dataset with None in the place of an empty `tf.experimental.Optional` of Keras's adapters."""

    def is_optional(value: Any) -> bool:
        return isinstance(value, (tf.OptionalSpec, tf.experimental.Optional))

    if not any(is_optional(spec) for spec in keras.tree.flatten(dataset.element_spec)):
        return dataset

    def without(element: Any) -> Any:
        return keras.tree.map_structure(lambda value: None if is_optional(value) else value, element)

    return _map(dataset, without)


def data_of(batch: Batch) -> tuple[Any, ...]:
    """Returns `(x, y, sample_weight)` with None for an absent one, which no structure of tensors can hold."""
    return tuple(None if isinstance(part, tuple) and not part else part for part in batch)


def as_keras_gives_it(batch: Batch) -> Any:
    """Returns a batch `(x, y, sample_weight)` in the form that Keras hands to `train_step` and `test_step`."""
    x, y, sample_weight = data_of(batch)
    return x.element if isinstance(x, WholeElement) else keras.utils.pack_x_y_sample_weight(x, y, sample_weight)


def of_any_size(spec: Any, keeps_rows: bool = False) -> Any:
    """Returns specs of tensors with any number of rows; None stays None.

    Args:
        spec: of an element, or of a part of it.
        keeps_rows: whether a number of rows that is known stays.
    """
    from tensorflow.python.framework.none_tensor import NoneTensorSpec  # public since TensorFlow 2.21

    if isinstance(spec, NoneTensorSpec):  # tf.data's, of None
        return None
    if isinstance(spec, tf.TensorSpec):
        if keeps_rows:
            return spec
        known = spec.shape.rank
        return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype) if known else spec
    if isinstance(spec, dict):
        found = copy.copy(spec)  # of its own class
        found.update({key: of_any_size(value, keeps_rows) for key, value in spec.items()})
        return found
    if isinstance(spec, (tuple, list)):
        parts = [of_any_size(value, keeps_rows) for value in spec]
        return type(spec)(*parts) if hasattr(spec, "_fields") else type(spec)(parts)
    return spec


def _map(dataset: Dataset, function: Any) -> Any:
    """Maps a function of whole elements: `tf.data` takes plain tuples apart, and no named ones."""
    if type(dataset.element_spec) is tuple:
        return dataset.map(lambda *element: function(element))
    return dataset.map(function)
