"""The order of examples: each one once an epoch, fair, and a pure function of (seed, epoch, step)."""

import itertools
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from tfmb.backend import keras, tf
from tfmb.data.augment import Augmentation
from tfmb.data.batches import Order, batched, part_bounds, stream
from tfmb.data.source import Source

MNIST_SIZE = 60_000
SEEDS = 3_000


def take(dataset: Any, count: int) -> list[Any]:
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


@st.composite
def orders(draw: st.DrawFn) -> Order:
    return Order(
        num_examples=draw(st.integers(1, 30)),
        batch_size=draw(st.integers(1, 35)),
        seed=draw(st.integers(0, 2**63 - 1)),
        shuffle=draw(st.booleans()),
    )


@settings(derandomize=True, deadline=None, max_examples=25)
@given(orders(), st.integers(0, 5))
def test_each_epoch_takes_each_example_once_and_keeps_the_ragged_batch(order: Order, epoch: int) -> None:
    n, size = order.num_examples, order.batch_size
    batches = [order.indices(epoch, step).numpy() for step in range(order.steps_per_epoch)]
    assert [len(batch) for batch in batches] == [size] * (n // size) + [n % size] * (n % size > 0)
    rows = np.concatenate(batches)
    np.testing.assert_array_equal(np.sort(rows), np.arange(n))
    np.testing.assert_array_equal(rows, order.permutation(epoch))
    if not order.shuffle:
        np.testing.assert_array_equal(rows, np.arange(n))


@pytest.mark.compile
@settings(derandomize=True, deadline=None, max_examples=25)
@given(orders(), st.integers(0, 100))
def test_the_pipeline_agrees_with_the_indices_from_any_first_update(order: Order, first: int) -> None:
    steps = order.steps_per_epoch
    count = 2 * min(steps, 10) + 1
    for update, batch in enumerate(take(order.dataset(first), count), start=first):
        np.testing.assert_array_equal(batch, order.indices(*divmod(update, steps)), err_msg=f"update {update}")


def test_the_pipeline_starts_where_it_is_told_however_late() -> None:
    order = Order(num_examples=7, batch_size=3, seed=5)
    first = 3 * 2**40 + 1  # more updates than 32 bits count
    for update, batch in enumerate(take(order.dataset(first), 4), start=first):
        np.testing.assert_array_equal(batch, order.indices(*divmod(update, 3)))


@pytest.mark.compile
def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    def order_of(seed: int, epoch: int) -> bytes:
        return Order(num_examples=50, batch_size=8, seed=seed).permutation(epoch).numpy().tobytes()

    seeds = [*range(20), 2**31, 2**32, 2**62]
    epochs = [*range(20), 2**32, 2**33]
    found = {(seed, epoch): order_of(seed, epoch) for seed in seeds for epoch in epochs}
    assert len(set(found.values())) == len(found)
    assert all(order_of(seed, epoch) == rows for (seed, epoch), rows in found.items())


def test_rows_of_each_batch_alone() -> None:
    order = Order(num_examples=23, batch_size=5, seed=3, shuffle="batch")
    epochs = [order.permutation(epoch).numpy() for epoch in range(3)]
    for found in epochs:
        for at in range(0, 23, 5):
            assert sorted(found[at : at + 5]) == list(range(at, min(at + 5, 23)))
    assert len({tuple(found) for found in [*epochs, np.arange(23)]}) == 4
    np.testing.assert_array_equal(order.permutation(1), epochs[1])


def test_no_generator_is_read_or_moved() -> None:
    order = Order(num_examples=50, batch_size=8, seed=3)
    expected = order.permutation(2).numpy()
    drawn = []
    for look in (False, True):
        tf.random.set_seed(1)
        np.random.seed(1)
        if look:
            np.testing.assert_array_equal(order.permutation(2), expected)
            np.testing.assert_array_equal(take(order.dataset(14), 1)[0], expected[:8])
        drawn.append((float(tf.random.uniform([])), float(np.random.uniform())))
    assert drawn[0] == drawn[1]


_PROGRAM = """
import json
from tfmb.data.batches import Order, batched
from tfmb.data.source import Source
source = Source.from_arrays(list(range(23)), list(range(23)))
found = []
for seed, first in json.loads({cases!r}):
    batches = batched(source, Order(num_examples=23, batch_size=5, seed=seed), first)
    found.append([x.numpy().tolist() for x, _, _ in batches.take(7)])
print(json.dumps(found))
"""


@pytest.mark.process
def test_a_fresh_process_draws_the_same_batches() -> None:
    cases = [(0, 0), (1, 3), (2**63 - 1, 1000)]
    program = _PROGRAM.format(cases=json.dumps(cases))
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TF_NUM_INTRAOP_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    for (seed, first), batches in zip(cases, json.loads(done.stdout), strict=True):
        order = Order(num_examples=23, batch_size=5, seed=seed)
        expected = [order.indices(*divmod(update, 5)).numpy().tolist() for update in range(first, first + 7)]
        assert batches == expected


# Fairness. Each check must pass the order, and reject one that is known to be unfair.


def unevenness(permutations: np.ndarray) -> float:
    """Chi-square of which example stands at which place, with (n - 1)^2 degrees of freedom."""
    count, n = permutations.shape
    table = np.stack([np.bincount(place, minlength=n) for place in permutations.T])
    expected = count / n
    return float((n - 1) / n * ((table - expected) ** 2 / expected).sum())


def correlations(rows: np.ndarray) -> np.ndarray:
    """Of each example's number with the one `lag` places later, for lags 1 to 8."""
    return np.array([np.corrcoef(rows[:-lag], rows[lag:])[0, 1] for lag in range(1, 9)])


def index_shuffle(n: int, seed: int, epoch: Any) -> Any:
    """TensorFlow's cheap shuffle: every example once, but not a fair order."""
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.random.experimental.index_shuffle(tf.range(n, dtype=tf.int64), key, tf.constant(n - 1, tf.int64))


@tf.function
def of_epochs(order: Any, count: Any) -> Any:
    return tf.map_fn(order, tf.range(count, dtype=tf.int64))


CRITICAL = chi2.isf(1e-4, 9**2)


@pytest.mark.compile
def test_over_seeds_any_example_may_stand_at_any_place() -> None:
    found = [Order(num_examples=10, batch_size=4, seed=seed).permutation(0).numpy() for seed in range(SEEDS)]
    assert unevenness(np.stack(found)) < CRITICAL


def test_over_epochs_any_example_may_stand_at_any_place() -> None:
    order = Order(num_examples=10, batch_size=4, seed=0)
    assert unevenness(of_epochs(order.permutation, SEEDS).numpy()) < CRITICAL


@pytest.mark.compile
def test_the_check_of_places_rejects_an_unfair_shuffle() -> None:
    found = of_epochs(lambda epoch: index_shuffle(10, 0, epoch), SEEDS).numpy()
    np.testing.assert_array_equal(np.sort(found), np.tile(np.arange(10), (SEEDS, 1)))
    assert unevenness(found) > 4 * CRITICAL


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_neighbours_are_unrelated(seed: int) -> None:
    order = Order(num_examples=MNIST_SIZE, batch_size=64, seed=seed)
    rows = order.permutation(0).numpy()
    assert np.abs(correlations(rows)).max() < 0.02
    for other in (order.permutation(1), Order(num_examples=MNIST_SIZE, batch_size=64, seed=seed + 1).permutation(0)):
        assert abs(np.corrcoef(rows, other.numpy())[0, 1]) < 0.02


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_check_of_neighbours_rejects_an_unfair_shuffle(seed: int) -> None:
    rows = index_shuffle(MNIST_SIZE, seed, 0).numpy()
    np.testing.assert_array_equal(np.sort(rows), np.arange(MNIST_SIZE))
    assert np.abs(correlations(rows)).max() > 0.2


@settings(derandomize=True, deadline=None, max_examples=200)
@given(size=st.integers(0, 10_000), parts=st.integers(1, 64), finer=st.integers(1, 8))
def test_parts_cover_a_batch_in_order_and_evenly(size: int, parts: int, finer: int) -> None:
    bounds = [part_bounds(size, part, parts) for part in range(parts)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == size
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(bounds))
    lengths = {stop - start for start, stop in bounds}
    assert min(lengths) >= 0
    assert max(lengths) - min(lengths) <= 1
    edges = {edge for part in range(parts * finer) for edge in part_bounds(size, part, parts * finer)}
    assert {edge for pair in bounds for edge in pair} <= edges


def test_part_bounds_of_a_tensor_are_those_of_a_number() -> None:
    for size, part in itertools.product((0, 1, 5, 64), range(4)):
        found = part_bounds(tf.constant(size), part, 4)
        assert tuple(int(bound) for bound in found) == part_bounds(size, part, 4)


N = 11
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 4, 4, 1), dtype=np.uint8)
LABELS = np.arange(N)
FLOATS = np.linspace(0, 1, N)
ORDER = Order(num_examples=N, batch_size=4, seed=9)


@pytest.mark.parametrize(
    "arrays",
    [
        (IMAGES, LABELS),
        (IMAGES, LABELS, FLOATS),
        ({"b": IMAGES, "a": FLOATS}, {"class": LABELS, "box": FLOATS.astype(np.float16)}),
        ([IMAGES, [FLOATS, LABELS]], (LABELS, FLOATS), (FLOATS, FLOATS)),
        ([IMAGES, IMAGES], LABELS.astype(np.int32)),
    ],
    ids=["images", "weights", "dicts", "lists", "equal inputs"],
)
@pytest.mark.parametrize("first", [0, 4])
def test_batches_are_the_rows_of_the_order_in_the_sources_own_dtypes(arrays: tuple[Any, ...], first: int) -> None:
    x, y, weight = (*arrays, None)[:3]
    expected = keras.tree.lists_to_tuples((x, y, () if weight is None else weight))
    batches = take(batched(Source.from_arrays(x, y, weight), ORDER, first), 5)
    for update, batch in enumerate(batches, start=first):
        rows = ORDER.indices(*divmod(update, 3)).numpy()
        keras.tree.assert_same_structure(batch, expected)
        leaves = zip(keras.tree.flatten(batch), keras.tree.flatten(expected), strict=True)
        for found, whole in leaves:
            np.testing.assert_array_equal(found, whole[rows], strict=True)


@pytest.mark.parametrize("augmentation", [None, Augmentation.parse("shift=1")])
@pytest.mark.parametrize("static", [False, True])
def test_nothing_is_tuned_in_memory(augmentation: Any, static: bool) -> None:
    # A pipeline's tuner sleeps for up to a minute, and whoever deletes an iterator waits for it.
    batches = batched(Source.from_arrays(IMAGES, LABELS), ORDER, 0, augmentation, static)
    assert batches.take(3).options().autotune.enabled is False


def test_a_stream_feeds_a_compiled_loop() -> None:
    source = Source.from_arrays(IMAGES, LABELS)
    batches = stream(source, ORDER)

    @tf.function
    def total(updates: Any) -> Any:
        labels = tf.TensorArray(tf.int64, size=updates, infer_shape=False)
        for update in tf.range(updates):
            labels = labels.write(update, next(batches)[1])
        return labels.concat()

    for epoch in range(2):  # the second call goes on where the first one ended
        np.testing.assert_array_equal(total(tf.constant(3)), ORDER.permutation(epoch))
