"""Seeds that are the same everywhere and unrelated between purposes, and generators that are put back."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from tfmb.backend import keras
from tfmb.seeds import derive, seeded

PURPOSES = st.lists(st.text(max_size=8) | st.integers(0, 2**40), max_size=3)
REPEATABLE = settings(derandomize=True, deadline=None, max_examples=100)


@REPEATABLE
@given(seed=st.integers(0, 2**63 - 1), purpose=PURPOSES)
def test_a_seed_has_31_bits_and_moves_no_generator(seed: int, purpose: list[str | int]) -> None:
    before = random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()
    first = derive(seed, *purpose)
    assert 0 <= first < 2**31
    assert derive(seed, *purpose) == first
    assert (random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((0, "order"), 1218160299), ((1, "order"), 144485013), ((0, "kernel", 3), 1220394780)],
)
def test_seeds_never_change(arguments: tuple[int, str, int], expected: int) -> None:
    """Runs that were made with an older version can be made again."""
    assert derive(*arguments) == expected


def test_seeds_of_neighbours_are_distinct_and_spread_evenly() -> None:
    seeds = [derive(seed, purpose, number) for seed in range(20) for purpose in ("a", "b") for number in range(50)]
    assert len(set(seeds)) == len(seeds) == 2000
    counts = np.bincount(np.array(seeds) >> 27, minlength=16)
    expected = len(seeds) / 16
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-4, 15)


def test_the_order_of_the_purpose_matters() -> None:
    assert derive(0, "a", "b") != derive(0, "b", "a")
    assert derive(0) != derive(0, 0)


def drawn() -> list[float]:
    """What each generator that Keras draws from gives next."""
    keras_draws = np.asarray(keras.random.uniform((2,))).tolist()
    return [random.random(), np.random.random(), *keras_draws]


@pytest.mark.parametrize("inside", [lambda: None, lambda: keras.utils.set_random_seed(5)], ids=["draws", "seeds"])
def test_seeded_draws_are_the_seeds_and_the_generators_stay_where_they_were(inside: Callable[[], None]) -> None:
    keras.utils.set_random_seed(1)
    expected = [drawn(), drawn()]
    keras.utils.set_random_seed(1)
    found = [drawn()]
    within = []
    for seed in (3, 3, 4):
        with seeded(seed):
            inside()
            within.append(drawn())
    assert [*found, drawn()] == expected
    assert within[0] == within[1]
    assert within[0] not in expected
    assert (within[2] == within[0]) == (inside.__code__.co_names != ())  # a seed of the user's own wins
