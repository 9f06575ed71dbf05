"""`class_weight` as weights of examples, for arrays and for datasets, as Keras weighs them."""

from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.types import Data

__all__ = ["check_class_weight", "class_weighter", "weights_of_classes"]


def check_class_weight(class_weight: Data) -> dict[int, float]:
    """The weights by class.

    Raises:
        ConfigError: it is no dict from integers to numbers.
    """
    if not isinstance(class_weight, dict) or not all(isinstance(key, (int, np.integer)) for key in class_weight):
        raise ConfigError("class_weight must be a dict from class (an int) to weight")
    try:
        return {int(key): float(weight) for key, weight in class_weight.items()}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"class_weight={class_weight!r} must have a number for each class") from error


def weights_of_classes(y: Data, sample_weight: Data, class_weight: Data) -> np.ndarray:
    """The weight of each example.

    Args:
        y: the targets.
        sample_weight: the weights that were given; None for none.
        class_weight: class -> weight; 1 for a class that is not there.

    Raises:
        ConfigError: there are weights already, or no single array of targets.
    """
    if sample_weight is not None:
        raise ConfigError("class_weight and sample_weight cannot both be given: multiply them into sample_weight")
    weights = check_class_weight(class_weight)
    if not isinstance(y, np.ndarray):
        raise ConfigError("class_weight needs a single output: give sample_weight for several")
    if y.ndim > 1:
        y = np.argmax(y, axis=-1) if y.shape[-1] != 1 else np.squeeze(y, axis=-1)
    classes, places = np.unique(np.round(y).astype(np.int64), return_inverse=True)
    return np.array([weights.get(int(c), 1.0) for c in classes], keras.config.floatx())[places.reshape(y.shape)]


def class_weighter(class_weight: Data, complete: bool = False) -> Any:
    """Returns a function that adds the classes' weights to the elements `(x, y)` of a dataset.

    Args:
        class_weight: class -> weight; 1 for a class that is not there.
        complete: whether a class above all of them ends the reading, as Keras demands of a `tf.data.Dataset`.

    Raises:
        ConfigError: it is no dict from integers to numbers.
    """
    weights = check_class_weight(class_weight)
    keys = np.array([*weights, np.iinfo(np.int32).min], np.int32)
    values = np.array([*weights.values(), 1.0], keras.config.floatx())  # the last one is for all other classes

    def add(*element: Any) -> tuple[Any, Any, Any]:
        x, y = element
        classes = y
        if y.shape.rank is None or y.shape.rank > 1:
            classes = tf.argmax(y, -1) if y.shape[-1] != 1 else tf.squeeze(y, -1)
        classes = tf.cast(tf.round(tf.cast(classes, tf.float32)), tf.int32)
        if complete:
            most = max(weights, default=-1)
            above = f"class_weight of a dataset has classes up to {most}, and the targets have a larger one"
            with tf.control_dependencies([tf.debugging.assert_less_equal(classes, most, above)]):
                classes = tf.identity(classes)
        matches = tf.equal(classes[..., tf.newaxis], keys)
        place = tf.where(tf.reduce_any(matches, -1), tf.argmax(tf.cast(matches, tf.int32), -1), len(keys) - 1)
        return x, y, tf.gather(tf.constant(values), place)

    return add
