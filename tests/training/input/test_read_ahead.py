"""How far a pipeline is read ahead: what its waits come to, and what they are measured from."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmb.backend import tf
from tfmb.training.input import prefetch
from tfmb.training.input.prefetch import depth, waits

SMALL = tf.TensorSpec([None, 4], tf.float32)


@pytest.mark.parametrize(
    ("longest", "expected"), [(1.0, 2), (2.0, 2), (2.1, 4), (7.9, 8), (8.0, 8), (8.1, 16), (63.0, 64), (1000.0, 64)]
)
def test_depth_covers_the_longest_wait(longest: float, expected: int) -> None:
    assert depth([1.0, 1.0, longest, 1.0, 1.0], SMALL) == expected


@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=64))
def test_depth_is_a_power_of_two_within_bounds(seconds: list[float]) -> None:
    found = depth(seconds, SMALL)
    assert 2 <= found <= 64
    assert found & (found - 1) == 0


def test_large_batches_are_not_read_far_ahead() -> None:
    images = (tf.TensorSpec([64, 512, 512, 3], tf.uint8), tf.TensorSpec([64], tf.int64))  # 48 MiB
    assert depth([1.0, 1.0, 1.0, 50.0], images) == 4
    assert depth([1.0, 1.0, 1.0, 50.0], tf.TensorSpec([4096, 512, 512, 3], tf.float32)) == 2


def test_one_batch_is_no_wait() -> None:
    assert waits(tf.data.Dataset.range(1)) == waits(tf.data.Dataset.range(0)) == []


def test_waits_are_those_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 3.5])
    monkeypatch.setattr(prefetch.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(prefetch, "_SECONDS", 100.0)
    assert waits(tf.data.Dataset.range(4)) == [1.0, 2.0, 0.5]


def test_measuring_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    endless: Any = tf.data.Dataset.range(10).repeat()
    monkeypatch.setattr(prefetch, "_SECONDS", 100.0)
    assert len(waits(endless)) == 64
    ticks = itertools.count(0.0, 0.2)
    monkeypatch.setattr(prefetch.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(prefetch, "_SECONDS", 0.5)
    assert len(waits(endless)) == 3
