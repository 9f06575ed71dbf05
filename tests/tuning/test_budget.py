"""What a trial may spend: the same for all batch sizes, in slices that grow."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.errors import ConfigError
from tfmb.tuning.budget import Budget


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_the_whole_is_the_same_number_of_examples_for_every_batch_size(batch_size: int) -> None:
    an_epoch = -(-1000 // batch_size)
    assert Budget(amount=2).updates(1, 1000, batch_size) == 2 * an_epoch
    assert Budget(amount=3000, unit="examples").updates(1, 1000, batch_size) == 3 * an_epoch
    assert Budget(amount=17, unit="updates").updates(1, 1000, batch_size) == 17


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.01, 20.0), st.sampled_from(["epochs", "seconds"]), st.integers(1, 30), st.integers(1, 5000),
    st.integers(1, 5000),
)  # fmt: skip
def test_every_slice_makes_an_update(amount: float, unit: str, slices: int, examples: int, batch_size: int) -> None:
    budget = Budget(amount=amount, unit=unit, slices=slices)
    bounds = [budget.updates(k, examples, min(batch_size, examples)) for k in range(slices + 1)]
    assert bounds[0] == 0
    assert all(later > earlier for earlier, later in itertools.pairwise(bounds))


def test_seconds_are_a_limit_only_where_asked_for() -> None:
    assert Budget(amount=6, unit="seconds", slices=3).seconds(2) == 4.0
    assert Budget(amount=6, slices=3).seconds(2) is None


@pytest.mark.parametrize(
    "given", [{"amount": 0}, {"amount": float("inf")}, {"amount": float("nan")}, {"amount": 1, "unit": "days"},
              {"amount": 1, "slices": 0}, {"amount": 1, "slices": 1.5}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"budget|slices"):
        Budget(**given)
