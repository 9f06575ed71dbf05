"""The climb to the best learning rate, on trainings whose updates are known."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.advice.rate_search import Tuned, tune_rate
from tfmb.advice.short_runs import ShortRun
from tfmb.advice.target import Look, Target

TARGET = Target.parse("val_loss<=0.1")


class Trainings:
    """Updates to the target are a bowl over the rate's logarithm; far above the best rate trainings diverge."""

    def __init__(self, best: float, edge: float = 8.0) -> None:
        self.best, self.edge = best, edge
        self.made: list[tuple[float, int]] = []

    def updates(self, rate: float) -> float:
        """Some rates near the best one are as good."""
        return 100 * (1 + math.log2(rate / self.best) ** 2 / 4)

    def train(self, rate: float, most: int) -> ShortRun:
        self.made.append((rate, most))
        diverged = rate > self.edge * self.best
        needed = self.updates(rate)
        reached = not diverged and needed <= most
        value = math.nan if diverged else 0.1 + max(0.0, needed - most) / 1000
        return ShortRun(
            batch_size=32,
            learning_rate=rate,
            updates=needed if reached else None,
            diverged=diverged,
            looks=(Look(updates=most, examples=most * 32, seconds=0.0, value=value),),
            step_seconds=0.001,
            spent_seconds=0.0,
        )

    def tune(self, start: float, most: int = 10_000) -> Tuned:
        return tune_rate(self.train, start, most, TARGET, lambda: False)


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-5, 1.0), st.floats(1 / 30, 30))
def test_the_best_rate_is_found_from_anywhere_near(best: float, off: float) -> None:
    trainings = Trainings(best)
    found = trainings.tune(best * off)
    assert found.best is not None
    assert best / 2 <= found.best.learning_rate <= best * 2
    assert found.learning_rate is not None
    assert best / 2 <= found.learning_rate <= best * 2
    assert len(trainings.made) <= 9


def test_no_training_goes_on_that_cannot_become_the_best() -> None:
    trainings = Trainings(0.1)
    trainings.tune(0.1)
    first = trainings.updates(trainings.made[0][0])
    assert all(most <= math.ceil(1.15 * first) for _, most in trainings.made[1:])


def test_nothing_reached_is_no_best() -> None:
    trainings = Trainings(0.1)
    found = trainings.tune(0.1, most=50)
    assert found.best is None
    assert found.runs


@pytest.mark.parametrize("allowed", [1, 2, 3])
def test_it_ends_when_the_time_is_over(allowed: int) -> None:
    trainings = Trainings(0.001)
    found = tune_rate(trainings.train, 0.03, 10_000, TARGET, lambda: len(trainings.made) >= allowed)
    assert len(found.runs) == allowed
