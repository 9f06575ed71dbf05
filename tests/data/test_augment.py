"""Augmentation: what each step does to an image, and that it is a function of (seed, epoch, example)."""

import itertools
from typing import Any

import numpy as np
import pytest

from tfmb.backend import tf
from tfmb.data import Augmentation
from tfmb.data.batches import Order, batched
from tfmb.data.source import Source
from tfmb.errors import ConfigError

SIZE = 9
ALL = Augmentation(shift=2, rotate=20, zoom=0.2, erase=0.4)


def some_images(count: int, dtype: str = "float32") -> Any:
    images = np.random.default_rng(count).uniform(1, 200, (count, SIZE, SIZE, 2))
    return tf.constant(images.astype("float32").astype(dtype))


def delta(count: int, row: int = SIZE // 2, column: int = SIZE // 2) -> Any:
    image = np.zeros((count, SIZE, SIZE, 1), np.float32)
    image[:, row, column] = 1
    return tf.constant(image)


def numbers(**columns: float) -> Any:
    """One example's random numbers: 0.5, no change, but for these."""
    places = {"angle": 0, "zoom": 1, "dx": 2, "dy": 3, "side": 4, "top": 5, "left": 6}
    row = np.full((1, 7), 0.5, np.float32)
    for name, value in columns.items():
        row[0, places[name]] = value
    return tf.constant(row)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_all_zeros_change_nothing(dtype: str) -> None:
    images, none = some_images(5, dtype), Augmentation()
    np.testing.assert_array_equal(none.apply(images, none.table(1, 0, 5)), images)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float16", "float32", "float64"])
def test_the_dtype_and_the_shape_are_kept(dtype: str) -> None:
    images = some_images(5, dtype)
    changed = ALL.apply(images, ALL.table(1, 0, 5))
    assert changed.dtype == images.dtype
    assert changed.shape == images.shape
    assert np.all(np.isfinite(changed.numpy().astype("float64")))


@pytest.mark.parametrize(("dx", "dy"), itertools.product((-2, 0, 1, 2), repeat=2))
def test_a_shift_by_whole_pixels_moves_the_image(dx: int, dy: int) -> None:
    change, row = Augmentation(shift=2), numbers(dx=(dx / 2 + 1) / 2, dy=(dy / 2 + 1) / 2)
    found = change.apply(delta(1), change.rows(row))
    np.testing.assert_allclose(found, delta(1, SIZE // 2 + dy, SIZE // 2 + dx), atol=1e-5)


def test_a_shift_is_never_more_than_was_asked() -> None:
    shifts = Augmentation(shift=2)
    found = shifts.apply(delta(200), shifts.table(3, 0, 200)).numpy()[..., 0]
    middle = SIZE // 2
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, atol=1e-4)
    for axis in (1, 2):
        centres = (found.sum(axis=3 - axis) * np.arange(SIZE)).sum(axis=1) - middle
        assert np.all(abs(centres) <= 2 + 1e-4)
        assert centres.min() < -1.5 < 1.5 < centres.max()


@pytest.mark.parametrize("options", [{"rotate": 180.0}, {"zoom": 0.5}, {"rotate": 30.0, "zoom": 0.3}], ids=str)
def test_turning_and_zooming_keep_the_centre(options: dict[str, float]) -> None:
    change = Augmentation(**options)
    found = change.apply(delta(50), change.table(3, 0, 50)).numpy()
    np.testing.assert_allclose(found[:, SIZE // 2, SIZE // 2], 1, atol=1e-4)


@pytest.mark.parametrize(("angle", "turns"), [(1.0, 1), (0.0, -1), (0.5, 0)])
def test_a_quarter_turn(angle: float, turns: int) -> None:
    image, change = some_images(1), Augmentation(rotate=90)
    found = change.apply(image, change.rows(numbers(angle=angle))).numpy()
    right = np.rot90(image.numpy(), turns, axes=(1, 2))
    other = np.rot90(image.numpy(), -turns, axes=(1, 2))
    assert min(abs(found - right).max(), abs(found - other).max()) < 0.05


def test_an_erased_square_is_no_larger_than_the_share_and_inside() -> None:
    erase = Augmentation(erase=0.5)
    images = tf.ones([200, 20, 20, 3])
    found = erase.apply(images, erase.table(3, 0, 200)).numpy()
    assert set(np.unique(found)) == {0.0, 1.0}
    sides = []
    for image in found[..., 0] == 0:
        rows, columns = image.any(axis=1), image.any(axis=0)
        np.testing.assert_array_equal(image, np.outer(rows, columns))
        sides += [rows.sum(), columns.sum()]
    assert max(sides) == 10
    np.testing.assert_array_equal(found[..., 0], found[..., 2])


def test_the_table_is_a_function_of_seed_and_epoch() -> None:
    table = ALL.table(3, 1, 6).numpy()
    assert table.shape == (6, 7)
    assert np.all(np.isfinite(table))
    np.testing.assert_array_equal(ALL.table(3, tf.constant(1, tf.int64), 6), table)
    np.testing.assert_array_equal(tf.function(lambda epoch: ALL.table(3, epoch, 6))(tf.constant(1)), table)
    for other in (ALL.table(3, 2, 6), ALL.table(4, 1, 6)):
        assert not np.any(other.numpy() == table)


def epochs(
    batch_size: int, change: Augmentation, first: int = 0, count: int = 2, seed: int = 5, shuffle: bool = True
) -> list[Any]:
    """For each epoch the changed images, in the order of the examples."""
    n = 10
    source = Source.from_arrays(some_images(n).numpy(), np.arange(n))
    order = Order(num_examples=n, batch_size=batch_size, seed=seed, shuffle=shuffle)
    steps = order.steps_per_epoch
    batches = batched(source, order, first * steps, change).take(count * steps).as_numpy_iterator()
    found = []
    for _ in range(count):
        taken = list(itertools.islice(batches, steps))
        labels = np.concatenate([batch[1] for batch in taken])
        found.append(np.concatenate([batch[0] for batch in taken])[np.argsort(labels)])
    return found


CHANGES = {"shift": 2, "rotate": 20, "zoom": 0.2, "erase": 0.4}
ONE_EACH = [Augmentation(**{name: most}) for name, most in CHANGES.items()]


@pytest.mark.parametrize("change", [*ONE_EACH, ALL], ids=[*CHANGES, "all"])
def test_an_example_looks_the_same_whatever_its_batch_and_new_each_epoch(change: Augmentation) -> None:
    small, large, whole = epochs(3, change), epochs(7, change), epochs(10, change, shuffle=False)
    for a, b, c in zip(small, large, whole, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(epochs(3, change, first=1, count=1)[0], small[1])
    for other in (small[1], epochs(3, change, seed=6)[0]):
        assert all(np.any(a != b) for a, b in zip(small[0], other, strict=True))


def test_no_two_examples_are_changed_alike() -> None:
    table = ALL.table(3, 0, 500).numpy()
    assert len(np.unique(table, axis=0)) == 500


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("shift=2", Augmentation(shift=2)),
        ("shift=2,rotate=10,zoom=0.1,erase=0.2", Augmentation(shift=2, rotate=10, zoom=0.1, erase=0.2)),
        ("erase=1,rotate=0", Augmentation(erase=1)),
    ],
)
def test_parse(text: str, right: Augmentation) -> None:
    assert Augmentation.parse(text) == right


BAD_TEXTS = ("", "shift", "shift=", "shift=a", "turn=3", "shift=1,shift=1", "shift=1,", "shift=-1", "shift=inf")


@pytest.mark.parametrize("text", [*BAD_TEXTS, "zoom=1", "erase=1.1", "rotate=181", "rotate=nan"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Augmentation.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"shift": True}, {"zoom": "1"}, {"erase": None}], ids=str)
def test_values_that_are_no_numbers_are_refused(options: Any) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Augmentation(**options)


@pytest.mark.parametrize("examples", [np.zeros((4, 3)), np.zeros((4, 3, 3)), {"a": np.zeros((4, 2, 2, 1))}])
def test_what_is_no_image_is_refused(examples: Any) -> None:
    source = Source(examples=examples, labels=np.arange(4), num_classes=None, name="", fingerprint="")
    with pytest.raises(ConfigError, match="needs images"):
        batched(source, Order(num_examples=4, batch_size=2, seed=0), 0, ALL)
