"""How a batch is cut, and that the sum over its parts is one fixed binary tree on any number of devices."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tfmb.backend import tf
from tfmb.errors import ConfigError
from tfmb.training.step.partition import Partition, add_in_tree, make_partition, only_reads, over_own_parts

WIDTH = 33
CUTS = [(parts, replicas) for parts in (1, 2, 4, 8, 16) for replicas in (1, 2, 4, 8, 16) if replicas <= parts]


@pytest.fixture(autouse=True)
def _additions_as_written() -> Iterator[None]:
    """As a training step sets it: else Grappler gathers additions into others of another order."""
    before = tf.config.optimizer.get_experimental_options().get("arithmetic_optimization", True)
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    yield
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": before})


def some_parts(parts: int) -> Any:
    """Vectors whose sum depends on the order of additions."""
    random = np.random.default_rng(parts)
    size = (parts, WIDTH)
    return (random.normal(size=size) * 10.0 ** random.integers(-4, 5, size=size)).astype(np.float32)


def tree(values: list[Any]) -> Any:
    """The reference: the halves' sums, added."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return tree(values[:half]) + tree(values[half:])


def assert_same_bits(found: Any, right: Any) -> None:
    np.testing.assert_array_equal(np.asarray(found).view(np.uint32), np.asarray(right).view(np.uint32))


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize(("parts", "replicas"), CUTS)
def test_the_sum_is_the_same_tree_on_any_number_of_devices(parts: int, replicas: int, overlaps: bool) -> None:
    partition, rows = make_partition(replicas, parts, None, None), some_parts(parts)
    traces = []

    def work(part: Any) -> Any:
        traces.append(part)
        row = tf.gather(tf.constant(rows), part)
        return [row[:2], row[2:]]

    specs = [tf.TensorSpec([2]), tf.TensorSpec([WIDTH - 2])]
    own = tf.function(lambda replica: tf.concat(over_own_parts(partition, replica, work, specs, overlaps), 0))
    sums = [own(tf.constant(replica)) for replica in range(replicas)]
    assert len(traces) == 1
    share = parts // replicas
    for replica, found in enumerate(sums):
        assert_same_bits(found, tree(list(rows[replica * share : (replica + 1) * share])))
    assert_same_bits(tf.function(add_in_tree)(sums), tree(list(rows)))


def test_the_reference_is_not_the_sum_in_order() -> None:
    rows = some_parts(16)
    in_order = rows[0]
    for row in rows[1:]:
        in_order = in_order + row
    assert np.any(in_order != tree(list(rows)))


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_other_dtypes_are_summed_too(dtype: str) -> None:
    rows = tf.reshape(tf.range(8 * WIDTH, dtype=tf.int64), [8, WIDTH])
    partition, specs = Partition(replicas=2, virtual_replicas=8), [tf.TensorSpec([WIDTH], dtype)]
    (found,) = over_own_parts(partition, tf.constant(1), lambda i: [tf.cast(rows, dtype)[i]], specs, True)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.sum(rows.numpy()[4:], axis=0))


def test_a_negative_zero_and_a_nan_come_through() -> None:
    rows = np.full((2, WIDTH), -0.0, np.float32)
    rows[1, 0] = np.nan
    partition = Partition(replicas=1, virtual_replicas=2)
    specs = [tf.TensorSpec([WIDTH])]
    (found,) = over_own_parts(partition, tf.constant(0), lambda i: [tf.constant(rows)[i]], specs, True)
    assert np.isnan(found[0])
    assert np.all(np.signbit(found[1:]))


def test_parts_overlap_only_where_none_writes() -> None:
    variable = tf.Variable(1.0)
    inner = tf.function(lambda x: variable.assign_add(x))
    functions = {
        "reads": (lambda x: x + variable, True),
        "draws": (lambda x: x + tf.random.normal([]), False),
        "writes": (lambda x: variable.assign(x), False),
        "calls what writes": (lambda x: inner(x) + 1.0, False),
        "writes in a branch": (lambda x: tf.cond(x > 0, lambda: inner(x), lambda: x), False),
    }
    for name, (function, right) in functions.items():
        traced = tf.function(function).get_concrete_function(tf.TensorSpec([]))
        assert only_reads(traced) == right, name


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_auto_is_one_part_a_device(replicas: int) -> None:
    partition = make_partition(replicas, "auto", None, 128)
    assert partition == Partition(replicas=replicas)
    assert (partition.virtual_replicas, partition.microbatches_per_replica, partition.num_microbatches) == (
        None,
        1,
        replicas,
    )


@pytest.mark.parametrize(("parts", "replicas"), CUTS)
def test_a_given_number_of_parts_is_shared_out(parts: int, replicas: int) -> None:
    partition = make_partition(replicas, parts, None, 128)
    assert not partition.one_by_one
    assert (partition.virtual_replicas, partition.microbatches_per_replica, partition.num_microbatches) == (
        parts,
        parts // replicas,
        parts,
    )


@pytest.mark.parametrize(
    ("replicas", "micro", "batch", "parts"),
    [(1, 128, 128, 1), (1, 64, 128, 2), (1, 50, 128, 4), (1, 1, 128, 128), (4, 128, 128, 4), (2, 1000, 10, 2)],
)
def test_the_micro_batch_chooses_the_number_of_parts(replicas: int, micro: int, batch: int, parts: int) -> None:
    partition = make_partition(replicas, "auto", micro, batch)
    assert partition.virtual_replicas == parts
    assert partition.one_by_one
    assert -(-batch // parts) <= micro


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, 3, None, 8), "virtual_replicas=3 must be a power of two"),
        ((4, 2, None, 8), "cannot be shared out evenly among 4"),
        ((3, 4, None, 8), "cannot be shared out evenly among 3"),
        ((3, "auto", 2, 8), "cannot be shared out evenly among 3"),
        ((1, 0, None, 8), "virtual_replicas=0 must be an integer"),
        ((1, True, None, 8), "virtual_replicas=True must be an integer"),
        ((1, 2.0, None, 8), "virtual_replicas=2.0 must be an integer"),
        ((1, "two", None, 8), "virtual_replicas='two' must be an integer"),
        ((1, "auto", 0, 8), "micro_batch_size=0 must be an integer"),
        ((1, "auto", True, 8), "micro_batch_size=True must be an integer"),
        ((1, 2, 4, 8), "cannot both be given"),
        ((1, "auto", 4, None), "needs a known batch size"),
    ],
)
def test_refusals(arguments: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make_partition(*arguments)
    assert "\n" not in str(caught.value)
