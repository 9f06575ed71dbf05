"""States and weights as arrays, and in files that are whole or what was there before."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfmb.backend import tf
from tfmb.errors import DataError
from tfmb.tuning.trials.states import keep, kept, newest_state, numbered, put_state, take_state

_random = np.random.default_rng(0)
ARRAYS: list[Any] = [
    _random.normal(size=(3, 4)).astype("float32"),
    np.array([5e-324, -0.0, np.inf, np.nan, 1 / 3]),
    np.int64(2**62),
    np.zeros((0, 2), "float32"),
    np.array([True, False]),
]


def variables(values: list[Any]) -> list[Any]:
    return [tf.Variable(value) for value in values]


@pytest.mark.parametrize("first_loss", [None, 0.1, 1e300])
def test_a_state_comes_back_to_the_bit(first_loss: float | None, tmp_path: Path) -> None:
    keep(tmp_path / "trial_0" / "state.npz", take_state(variables(ARRAYS), 3, first_loss))
    slices, state = newest_state(tmp_path / "trial_0" / "state.npz", 3)
    assert slices == 3
    assert state is not None
    found = variables([np.zeros_like(value) for value in ARRAYS])
    loss = put_state(state, found)
    assert np.isnan(loss) if first_loss is None else loss == first_loss
    for one, other in zip(found, ARRAYS, strict=True):
        assert (one.numpy().dtype, one.numpy().tobytes()) == (other.dtype, other.tobytes())


def test_a_state_is_a_copy() -> None:
    (found,) = variables([np.zeros(3)])
    state = take_state([found], 1, None)
    found.assign_add(np.ones(3))
    assert not state["v00000"].any()


def test_more_than_ten_arrays_keep_their_order(tmp_path: Path) -> None:
    values = [np.array([float(number)]) for number in range(120)]
    keep(tmp_path / "a.npz", numbered(values))
    assert list(kept(tmp_path / "a.npz").values()) == values
    found = variables([np.zeros(1)] * 120)
    put_state(take_state(variables(values), 1, None), found)
    assert [float(variable[0]) for variable in found] == list(range(120))


def test_a_state_of_another_model_is_refused_and_nothing_is_assigned() -> None:
    state = take_state(variables(ARRAYS), 1, None)
    found = variables([np.zeros_like(value) for value in ARRAYS[:1]])
    with pytest.raises(DataError, match="is of another model"):
        put_state(state, found)
    assert not found[0].numpy().any()


def test_a_newer_state_replaces_an_older_one_and_none_is_taken_that_is_ahead(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    assert newest_state(path, 9) == (0, None)
    for slices in (1, 3):
        keep(path, take_state([], slices, None))
    assert [newest_state(path, most)[0] for most in (9, 3, 2)] == [3, 3, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]


def test_what_is_kept_is_whole_or_what_was_there_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    keep(tmp_path / "a.npz", numbered(ARRAYS[:1]))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        keep(tmp_path / "a.npz", numbered(ARRAYS[1:]))
    (found,) = kept(tmp_path / "a.npz").values()
    np.testing.assert_array_equal(found, ARRAYS[0])


@pytest.mark.parametrize("place", [0.01, 0.3, 0.7, 0.99])
def test_what_was_changed_or_cut_is_told(place: float, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    keep(path, numbered([_random.normal(size=(100, 100))]))
    whole = path.read_bytes()
    at = int(place * len(whole))
    for damaged in (whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :], whole[:at], b""):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a.npz cannot be read .*: it is damaged"):
            kept(path)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        kept(path)


def test_a_file_whose_list_of_arrays_lost_one_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    keep(path, numbered([np.zeros(2), np.ones(2)]))
    whole = dict(np.load(path))
    np.savez(path, **{name: array for name, array in whole.items() if name != "w00001"})
    with pytest.raises(DataError, match="has 1 of 2 arrays: it is damaged"):
        kept(path)
