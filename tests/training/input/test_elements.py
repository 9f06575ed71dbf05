"""Elements of datasets are taken apart as Keras takes them apart."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.training.input.elements import check_elements, in_parts, inputs_of, without_optionals

X, Y = tf.constant([[1.0], [2.0]]), tf.constant([3, 4])


class Example(NamedTuple):
    """A named tuple is a tuple."""

    x: Any
    y: Any


@pytest.mark.parametrize(
    "element",
    [X, (X,), (X, Y), (X, Y, Y), ((X, Y),), ((X, Y), Y), {"a": X}, ({"a": X, "b": None}, Y), Example(X, Y), (X, None)],
    ids=["x", "(x,)", "(x, y)", "(x, y, w)", "((a, b),)", "((a, b), y)", "dict", "None inside", "named", "no y"],
)
def test_parts_are_keras_s(element: Any) -> None:
    dataset = tf.data.Dataset.from_tensors(element)
    expected = keras.utils.unpack_x_y_sample_weight(element)
    (found,) = in_parts(dataset)
    assert len(found) == 3
    for part, right in zip(found, expected, strict=True):
        if right is None:
            assert part == ()
            continue
        keras.tree.assert_same_structure(part, right)
        for a, b in zip(keras.tree.flatten(part), keras.tree.flatten(right), strict=True):
            assert (a is b is None) or np.array_equal(a, b)
    (inputs,) = inputs_of(dataset)
    keras.tree.assert_same_structure(inputs, keras.utils.pack_x_y_sample_weight(expected[0]))


def test_an_empty_optional_is_none() -> None:
    spec = (tf.TensorSpec([None, 1]), tf.OptionalSpec(None))
    dataset = tf.data.Dataset.from_generator(lambda: iter([(X, tf.experimental.Optional.empty(None))]),
                                             output_signature=spec)  # fmt: skip
    ((x, y),) = without_optionals(dataset)
    assert y is None
    np.testing.assert_array_equal(x, X)
    ((_, y, _),) = in_parts(dataset)
    assert y == ()
    whole = tf.data.Dataset.from_tensors((X, Y))
    assert without_optionals(whole) is whole


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\Ax yields 4 parts: [^\n]*\Z"):
        check_elements((1, 2, 3, 4), "x")
    check_elements({"a": 1}, "x")
