"""What trials are compared by: names, directions, targets, and trials that miss them."""

import pytest

from tfmb.errors import ConfigError
from tfmb.tuning.objective import Objective
from tfmb.tuning.records import Evaluation


def looks(*values: float, name: str = "val_accuracy") -> list[Evaluation]:
    return [
        Evaluation(slice=k, updates=10 * k, examples=100 * k, seconds=2.0 * k, metrics={name: value})
        for k, value in enumerate(values, 1)
    ]


@pytest.mark.parametrize(
    ("text", "metric", "direction"),
    [
        ("val_loss", "val_loss", "min"),
        ("val_accuracy", "val_accuracy", "max"),
        ("val_sparse_top_k_categorical_accuracy", "val_sparse_top_k_categorical_accuracy", "max"),
        ("val_mean_absolute_error", "val_mean_absolute_error", "min"),
        ("min:val_mine", "val_mine", "min"),
        ("max:val_mine", "val_mine", "max"),
    ],
)
def test_metrics_are_read_with_their_direction(text: str, metric: str, direction: str) -> None:
    found = Objective.parse(text)
    assert (found.metric, found.direction, found.clock) == (metric, direction, None)


@pytest.mark.parametrize(
    "text", ["", "val_mine", "up:val_loss", "val loss", "seconds:val_loss", "days:val_loss<=1", "seconds:val_loss<=x",
             "seconds:val_loss<=inf", "max:"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^objective "):
        Objective.parse(text)


def test_a_metric_counts_with_its_best_value() -> None:
    assert Objective.parse("val_accuracy").score(looks(0.5, 0.9, 0.8), 3) == 0.9
    assert Objective.parse("val_loss").score(looks(0.5, 0.9, 0.4, name="val_loss"), 3) == 0.4
    assert Objective.parse("val_loss").score([], 3) is None
    with pytest.raises(ConfigError, match="'val_loss': there is only val_accuracy"):
        Objective.parse("val_loss").score(looks(0.5), 3)


@pytest.mark.parametrize(("clock", "at"), [("seconds", 4.0), ("examples", 200.0), ("updates", 20.0)])
def test_time_to_a_target_is_that_of_the_first_look_that_reached_it(clock: str, at: float) -> None:
    objective = Objective.parse(f"{clock}:val_accuracy>=0.9")
    assert objective.direction == "min"
    assert objective.score(looks(0.5, 0.9, 0.95), 3) == at
    assert objective.reached(looks(0.5, 0.9))
    assert not objective.reached(looks(0.5))


def test_trials_that_miss_the_target_are_worse_than_all_that_do_not_and_not_equal() -> None:
    objective = Objective.parse("examples:val_accuracy>=0.9")
    last, near, far, early = (
        objective.score(looks(*values), 3) for values in ((0.1, 0.2, 0.9), (0.1, 0.2, 0.89), (0.1, 0.2, 0.3), (0.3,))
    )
    assert last == 300
    assert near is not None
    assert far is not None
    assert last < near < far
    assert early == far  # stopped early, it is as far off as one of the whole budget


@pytest.mark.parametrize(
    ("text", "slice_"),
    [("val_loss", 2), ("max:val_loss", 3), ("updates:val_loss<=0.6", 1), ("updates:val_loss<=0.1", 2)],
)
def test_the_evaluation_that_counts_is_the_best_or_the_first_that_reached_the_target(text: str, slice_: int) -> None:
    history = [
        Evaluation(slice=k, updates=k, examples=k, seconds=k, metrics={"val_loss": loss})
        for k, loss in enumerate([0.6, 0.4, 0.7], 1)
    ]
    assert Objective.parse(text).best(history).slice == slice_
    with pytest.raises(ConfigError, match="there is only val_loss"):
        Objective.parse("val_auc").best(history)
