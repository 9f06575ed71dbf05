"""`Source`: what is accepted, what is refused, its fingerprint, and its parts."""

import random
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfmb.backend import keras, tf
from tfmb.data.source import Normalization, Source
from tfmb.errors import ConfigError, DataError

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=100)
N = 5
X = np.arange(N * 3, dtype=np.float32).reshape(N, 3)
Y = np.array([0, 1, 2, 0, 1])
STRUCTURES: dict[str, Any] = {
    "array": X,
    "list": [X, X[:, 0]],
    "tuple": (X, X[:, :1]),
    "dict": {"a": X, "b": X[:, 0]},
    "nested": {"a": [X, {"c": X + 1}], "b": (X[:, 0],)},
}


@pytest.mark.parametrize("x", STRUCTURES.values(), ids=STRUCTURES)
@pytest.mark.parametrize("y", [Y, {"class": Y, "box": [X, X]}], ids=["one output", "several"])
def test_any_structure_keeps_its_form_and_is_cut_by_rows(x: Any, y: Any) -> None:
    weight = np.linspace(0, 1, N)
    source = Source.from_arrays(x, y, weight, name="mine")
    assert source.size == N
    assert source.name == "mine"
    for index in (slice(1, 4), np.array([4, 0, 0])):
        part = source.rows(index, name="part")
        assert part.name == "part"
        for whole, cut in ((x, part.examples), (y, part.labels), (weight, part.sample_weight)):
            keras.tree.assert_same_structure(whole, cut)
            for leaf, found in zip(keras.tree.flatten(whole), keras.tree.flatten(cut), strict=True):
                np.testing.assert_array_equal(found, leaf[index], strict=True)
        of_the_rows = keras.tree.map_structure(lambda leaf, rows=index: leaf[rows], (x, y, weight))
        assert part.fingerprint == Source.from_arrays(*of_the_rows).fingerprint


def test_lists_of_numbers_and_tensors_are_arrays() -> None:
    source = Source.from_arrays(tf.constant(X), [0, 1, 2, 0, 1], [1.0, 2.0, 3.0, 4.0, 5.0], num_classes=3)
    np.testing.assert_array_equal(source.examples, X, strict=True)
    np.testing.assert_array_equal(source.labels, Y, strict=True)
    np.testing.assert_array_equal(source.sample_weight, [1.0, 2.0, 3.0, 4.0, 5.0])


def test_lists_of_numbers_in_structures_are_arrays_too() -> None:
    source = Source.from_arrays({"a": [1, 2, 3], "b": [X[:3], (4.0, 5.0, 6.0)]}, {"c": [0, 1, 0]}, [None, [1, 2, 3]])
    np.testing.assert_array_equal(source.examples["a"], np.array([1, 2, 3]), strict=True)
    np.testing.assert_array_equal(source.examples["b"][1], np.array([4.0, 5.0, 6.0]), strict=True)
    np.testing.assert_array_equal(source.labels["c"], np.array([0, 1, 0]), strict=True)
    assert source.sample_weight[0] is None
    np.testing.assert_array_equal(source.sample_weight[1], np.array([1, 2, 3]), strict=True)


def test_numpy_arrays_are_not_copied() -> None:
    assert Source.from_arrays(X, Y).examples is X


NAN, INF = X.copy(), X.copy()
NAN[3, 1], INF[0, 0] = np.nan, -np.inf


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None, Y), "x is needed"),
        (({}, Y), "x is needed"),
        (([], Y), "x is needed"),
        ((X, Y[:4]), "x has 5, y has 4"),
        (({"a": X, "b": X[:2]}, Y), "x['b'] has 2"),
        (([X, [X, X[:1]]], Y), "x[1][1] has 1"),
        ((X, Y, np.ones(6)), "sample_weight has 6"),
        ((np.float32(3), Y), "scalar"),
        ((X, 3), "scalar"),
        (([X, np.array(1)], Y), "scalar"),
        ((X[:0], Y[:0]), "no examples"),
        ((NAN, Y), "x holds NaN or infinite values"),
        ((INF, Y), "x holds NaN or infinite values"),
        (({"a": X, "b": NAN}, Y), "x['b'] holds NaN or infinite values"),
        ((X, NAN), "y holds NaN or infinite values"),
        ((X, Y, np.array([1, 1, 1, 1, np.inf])), "sample_weight holds NaN or infinite values"),
        ((np.array([None] * N), Y), "x has dtype object"),
        ((np.zeros(N, "datetime64[D]"), Y), "x has dtype datetime64"),
        (("text", Y), "scalar"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_no_sense_is_refused_in_one_line(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(DataError) as caught:
        Source.from_arrays(*arguments, name="mine")
    message = str(caught.value)
    assert message.startswith("mine: ")
    assert words in message
    assert "\n" not in message


def test_a_ragged_list_is_refused() -> None:
    with pytest.raises(DataError, match="mine: "):
        Source.from_arrays([1, [2]], [0, 1], name="mine")


def test_a_named_tuple_is_a_tuple() -> None:
    class Pair(NamedTuple):
        left: np.ndarray
        right: np.ndarray

    assert Source.from_arrays(Pair(X, X[:, 0]), Y).fingerprint == fingerprint((X, X[:, 0]))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0, 1, 2, 0, 3]), "label 3 is out of range [0, 3)"),
        (np.array([0, -1, 2, 0, 1]), "label -1 is out of range [0, 3)"),
        (np.array([0, 1, 2, 0, 2**63], np.uint64), f"label {2**63} is out of range"),
        (Y.astype(np.float32), "integers"),
        ([Y, Y], "one array of integers"),
        (np.zeros((N, 0), np.int64), "label"),
    ],
    ids=["too large", "negative", "unsigned", "floats", "two outputs", "no column"],
)
def test_class_labels_must_be_integers_in_range(labels: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        Source.from_arrays(X, labels, num_classes=3, name="mine")
    assert str(caught.value).startswith("mine: ")
    assert words in str(caught.value)


@REPEATABLE
@given(
    x=hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)),
    y=hnp.arrays(hnp.integer_dtypes() | hnp.floating_dtypes(), hnp.array_shapes(min_dims=0, max_dims=2, max_side=3)),
    num_classes=st.none() | st.integers(1, 3),
)
def test_any_arrays_are_accepted_or_a_data_error(x: np.ndarray, y: np.ndarray, num_classes: int | None) -> None:
    try:
        source = Source.from_arrays(x, y, num_classes=num_classes)
    except DataError:
        return
    assert source.size == len(x) == len(y) > 0


def fingerprint(x: Any, y: Any = Y, weight: Any = None) -> str:
    return Source.from_arrays(x, y, weight, num_classes=None, name=str(random.random())).fingerprint


def test_equal_data_has_an_equal_fingerprint_wherever_it_lies_in_memory() -> None:
    expected = fingerprint(X)
    wide = np.zeros((N, 6), np.float32)
    wide[:, ::2] = X
    for same in (X.copy(), np.asfortranarray(X), wide[:, ::2], np.flip(X[::-1], 0)):
        assert fingerprint(same) == expected
    assert Source.from_arrays(X, Y, num_classes=3).fingerprint == expected


def test_any_change_of_dtype_shape_or_structure_changes_the_fingerprint() -> None:
    variants = [
        (X,),
        (X.view(np.int32),),
        (X.view(np.uint32),),
        (X.astype(">f4"),),
        (X.astype(np.float64),),
        (X[..., None],),
        (X.reshape(N, 1, 3),),
        (X[:4], Y[:4]),
        ([X],),
        ([[X]],),
        ([X, X],),
        ([X, X, X],),
        ({"a": X},),
        ({"b": X},),
        ({"a": [X]},),
        ({"a": X, "b": X + 1},),
        ({"b": X, "a": X + 1},),
        ({"a, b": X},),
        (X, [Y]),
        (X, Y.astype(np.int32)),
        (X, Y[::-1]),
        (X, Y, np.ones(N)),
        (X, Y, np.ones(N, np.float32)),
        (X, Y, [np.ones(N)]),
        (X, [Y, np.ones(N)]),
        (X[::-1], Y[::-1]),
    ]
    assert len({fingerprint(*variant) for variant in variants}) == len(variants)


def test_a_dict_with_numbers_for_keys_is_no_list_to_the_fingerprint() -> None:
    assert fingerprint({0: X}) != fingerprint([X])


def test_the_order_of_a_dicts_keys_does_not_matter_to_the_fingerprint() -> None:
    assert fingerprint({"a": X, "b": X + 1}) == fingerprint({"b": X + 1, "a": X})


@REPEATABLE
@given(st.integers(0, X.nbytes - 1), st.integers(0, 7))
def test_any_bit_changes_the_fingerprint(position: int, bit: int) -> None:
    pixels = X.view(np.uint8).copy()
    expected = fingerprint(pixels)
    pixels.reshape(-1)[position] ^= 1 << bit
    assert fingerprint(pixels) != expected


@REPEATABLE
@given(size=st.integers(2, 200), data=st.data())
def test_held_out_rows_are_disjoint_complete_and_in_order(size: int, data: st.DataObject) -> None:
    held = data.draw(st.integers(1, size - 1))
    rows = np.arange(size)
    source = Source.from_arrays({"row": rows}, rows % 3, rows + 0.5, num_classes=3, name="mine")
    rest, validation = source.hold_out(held)
    assert validation.size == held
    found = np.concatenate([rest.examples["row"], validation.examples["row"]])
    np.testing.assert_array_equal(np.sort(found), rows)
    for part in (rest, validation):
        assert (np.diff(part.examples["row"]) > 0).all()
        np.testing.assert_array_equal(part.labels, part.examples["row"] % 3)
        np.testing.assert_array_equal(part.sample_weight, part.examples["row"] + 0.5)
        assert part.num_classes == 3
    assert rest.name == "mine"
    assert validation.name == "mine (validation)"


def test_the_same_rows_are_held_out_every_time_whatever_the_generators_do() -> None:
    source = Source.from_arrays(np.arange(20), np.arange(20))
    expected = [1, 3, 6, 10, 16]
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        tf.random.set_seed(seed)
        keras.utils.set_random_seed(seed)
        assert source.hold_out(5)[1].examples.tolist() == expected
    other = Source.from_arrays(np.arange(20) * 1.5, np.arange(20) % 2)
    np.testing.assert_array_equal(other.hold_out(5)[1].examples, np.array(expected) * 1.5)


def test_held_out_rows_come_from_everywhere() -> None:
    """Not the first or last ones: data is often sorted by class."""
    _, validation = Source.from_arrays(np.arange(10_000), np.arange(10_000)).hold_out(1000)
    counts = np.bincount(validation.examples // 1000, minlength=10)
    assert counts.min() > 60  # 4 standard deviations
    assert counts.max() < 140


@pytest.mark.parametrize("size", [-1, 0, N, N + 1])
def test_a_held_out_part_that_leaves_nothing_on_one_side_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"validation size {size} must be between 1 and {N - 1}"):
        Source.from_arrays(X, Y).hold_out(size)


@REPEATABLE
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=4, max_side=6)))
def test_normalization_is_the_mean_and_deviation_of_all_pixels(images: np.ndarray) -> None:
    measured = Normalization.measure(images)
    assert measured.mean == pytest.approx(images.mean() / 255, abs=5.1e-5)
    deviation = images.std() / 255
    assert measured.std == pytest.approx(deviation if deviation > 5.1e-5 else 1.0, abs=5.1e-5)


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (np.zeros((N, 7, 8, 3), np.uint8), (7, 8, 3)),
        (np.zeros((N, 7, 8, 3), np.float32), None),
        (np.zeros((N, 7, 8), np.uint8), None),
        ([np.zeros((N, 7, 8, 3), np.uint8)], None),
    ],
)
def test_only_uint8_images_have_an_image_shape(x: Any, shape: tuple[int, ...] | None) -> None:
    assert Source.from_arrays(x, Y).image_shape == shape
