"""States and weights as bytes, and in folders that are whole or not there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfmb.backend import tf
from tfmb.errors import DataError
from tfmb.tuning.states import (
    drop_states,
    keep_state,
    keep_weights,
    kept_state,
    load_weights,
    newest_state,
    pack_state,
    pack_weights,
    unpack_state,
)

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
def test_a_state_comes_back_to_the_bit(first_loss: float | None) -> None:
    state = pack_state(variables(ARRAYS), first_loss)
    found = variables([np.zeros_like(value) for value in ARRAYS])
    loss = unpack_state(state, found)
    assert np.isnan(loss) if first_loss is None else loss == first_loss
    for one, other in zip(found, ARRAYS, strict=True):
        assert (one.numpy().dtype, one.numpy().tobytes()) == (other.dtype, other.tobytes())
    assert pack_state(found, first_loss) == state


def test_more_than_ten_variables_keep_their_order() -> None:
    values = [np.array([float(number)]) for number in range(120)]
    found = variables([np.zeros(1)] * 120)
    unpack_state(pack_state(variables(values), None), found)
    assert [float(variable[0]) for variable in found] == list(range(120))


def test_a_state_of_another_model_or_a_damaged_one_is_refused_and_nothing_is_assigned() -> None:
    state = pack_state(variables(ARRAYS), None)
    found = variables([np.zeros_like(value) for value in ARRAYS[:1]])
    with pytest.raises(DataError, match="is of another model"):
        unpack_state(state, found)
    for cut in (0, 1, len(state) // 2, len(state) - 1):
        with pytest.raises(DataError, match="cannot be read"):
            unpack_state(state[:cut], found)
    assert not found[0].numpy().any()


def test_the_newest_state_is_kept_and_those_before_it_go(tmp_path: Path) -> None:
    assert newest_state(tmp_path, 9) == 0
    for slices in (1, 3):
        keep_state(tmp_path, f"after {slices}".encode(), slices)
    assert (newest_state(tmp_path, 9), newest_state(tmp_path, 2)) == (3, 0)
    assert kept_state(tmp_path, 3) == b"after 3"
    keep_state(tmp_path, b"told again", 3)
    assert kept_state(tmp_path, 3) == b"after 3"
    drop_states(tmp_path, 9)
    assert list(tmp_path.iterdir()) == []


def test_a_kept_state_that_was_changed_is_told(tmp_path: Path) -> None:
    keep_state(tmp_path, b"as it was", 1)
    (tmp_path / "state-0001" / "state.npz").write_bytes(b"as it is.")
    with pytest.raises(DataError, match=r"state.npz is not as it was written"):
        kept_state(tmp_path, 1)


def test_weights_replace_those_before_them(tmp_path: Path) -> None:
    for factor in (1, 2):
        keep_weights(tmp_path / "trial_0" / "weights", pack_weights([factor * ARRAYS[0]]))
    (found,) = load_weights(tmp_path / "trial_0" / "weights")
    np.testing.assert_array_equal(found, 2 * ARRAYS[0])
