"""A slice as a function call: how far it goes, what it reports, and what a worker keeps from call to call."""

import dataclasses
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from fake_trials import SLICES, FakeTrainer, Shared, trained_by

from tfmb.errors import ConfigError, DataError
from tfmb.training.loop.explosion import Exploded
from tfmb.tuning.executors.worker import run_slice, versions
from tfmb.tuning.trials import slices
from tfmb.tuning.trials.slices import SliceReport, SliceTask

VALUES = {"learning_rate": 0.003, "batch_size": 128}


def task(**given: Any) -> SliceTask:
    kept: dict[str, Any] = {"search": Shared.fingerprint, "trial": "0", "values": VALUES, "until": SLICES}
    kept |= {"slices": SLICES, "objective": "val_loss", "versions": versions()}
    return SliceTask(**{**kept, **given})


@pytest.fixture
def trainer() -> Iterator[FakeTrainer]:
    found = FakeTrainer()
    with trained_by(found):
        yield found


def run(given: SliceTask) -> SliceReport:
    """By a worker that the task came to, and whose report came back."""
    # `Shared` stands in the place of a SearchTask; a task is frozen: the test writes into one on purpose below.
    found: SliceReport = pickle.loads(pickle.dumps(run_slice(Shared(), pickle.loads(pickle.dumps(given)))))  # type: ignore[arg-type]
    return found


def test_a_trial_is_run_to_its_end_and_leaves_weights_but_no_state(trainer: FakeTrainer) -> None:
    found = run(task())
    assert [look.slice for look in found.evaluations] == list(range(1, SLICES + 1))
    assert (found.fate, found.state, found.weights is None) == (None, None, False)


@pytest.mark.usefixtures("trainer")
def test_a_slice_ends_where_it_is_told_and_the_next_goes_on_from_there() -> None:
    first = run(task(until=3))
    second = run(task(begun=first.evaluations, state=first.state))
    assert [look.slice for look in first.evaluations] == [1, 2, 3]
    assert (*first.evaluations, *second.evaluations) == run(task()).evaluations
    assert (first.state is None, second.state) == (False, None)


@pytest.mark.usefixtures("trainer")
def test_a_report_comes_after_ten_seconds_wherever_the_trial_is(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(task()).evaluations
    monkeypatch.setattr(slices, "_REPORT_SECONDS", -1.0)
    looks: tuple[Any, ...] = ()
    state = None
    for number in range(1, SLICES + 1):
        found = run(task(begun=looks, state=state))
        assert [look.slice for look in found.evaluations] == [number]
        looks, state = (*looks, *found.evaluations), found.state
    assert looks == whole


@pytest.mark.usefixtures("trainer")
def test_a_trial_that_reached_the_target_ends() -> None:
    found = run(task(objective="updates:val_loss<=0.5"))
    assert [look.slice for look in found.evaluations] == [1, 2, 3]
    assert found.weights is not None


@pytest.mark.usefixtures("trainer")
@pytest.mark.parametrize(
    ("objective", "best", "sent"),
    [
        *(("val_loss", None, True), ("val_loss", 9.0, True), ("val_loss", 0.1, False)),
        *(("val_accuracy", 0.5, True), ("val_accuracy", 1.0, False)),
    ],
)
def test_weights_are_sent_of_the_best_trial_alone(objective: str, best: float | None, sent: bool) -> None:
    assert (run(task(objective=objective, best=best)).weights is not None) == sent


@pytest.mark.usefixtures("trainer")
def test_weights_are_sent_of_a_trial_that_is_as_good_as_the_best() -> None:
    best = run(task()).evaluations[-1].metrics["val_loss"]
    assert run(task(best=best)).weights is not None


class Ending(FakeTrainer):
    """Ends in the third slice."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.forgotten = error, 0

    def run(self, values: Any, goes_on: Any, state: Any, begun: Any, *about: Any) -> Any:
        super().run(values, lambda look: bool(goes_on(look)) and look.slice < 2, state, begun)
        raise self.error

    def forget(self) -> None:
        self.forgotten += 1


LONG = "x" * 9999


@pytest.mark.parametrize(
    ("error", "fate", "cause", "forgotten"),
    [
        (Exploded("the loss rose", 7), "diverged", "the loss rose far above its start at update 7", 0),
        (KeyError("my\n  bug"), "failed", r"KeyError: 'my\n bug'", 1),
        (MemoryError(), "failed", "MemoryError", 1),
        (ValueError(LONG), "failed", f"ValueError: {LONG}"[:500], 1),
    ],
)
def test_a_trial_that_is_cut_short_is_a_report(error: Exception, fate: str, cause: str, forgotten: int) -> None:
    ending = Ending(error)
    with trained_by(ending):
        found = run(task())
    assert (found.fate, found.cause, len(found.evaluations)) == (fate, cause, 2)
    assert (found.state, found.weights, ending.forgotten) == (None, None, forgotten)


@pytest.mark.usefixtures("trainer")
def test_a_trial_that_diverged_says_at_which_update() -> None:
    found = run(task(values={**VALUES, "learning_rate": 9.0}))
    assert (found.fate, found.evaluations) == ("diverged", ())
    assert found.cause == "the loss or a gradient became NaN or infinite at update 7"


@pytest.mark.parametrize("error", [ConfigError("the model has no loss"), DataError("the state is damaged")])
def test_what_no_trial_can_be_trained_with_is_an_error(error: Exception) -> None:
    with trained_by(Ending(error)), pytest.raises(type(error), match=str(error)):
        run(task())


def test_a_task_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        task().trial = "1"  # type: ignore[misc]
