"""The charts of a search hold its numbers, whatever a search may hold."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searches import NASTY, mixed, search, trial

from tfmb.tuning.records import FATES, Evaluation, SearchRecord, TrialRecord
from tfmb.tuning.report.figures import best_points, charts, curve_metric

# Not finite, or too large for a sum to be so, or no number at all.
NUMBERS = st.none() | st.floats() | st.integers() | st.sampled_from([0.0, 1e-3, 5e-324, 1e308, -1e308, 10**400])
VALUES = NUMBERS | st.booleans() | st.text(max_size=12) | st.sampled_from([NASTY, "x" * 5000, "\ud800", "full"])


def figure(record: SearchRecord, name: str) -> dict[str, Any]:
    """A chart as JSON: `data` and `layout`."""
    found: Any = next(chart.figure for chart in charts(record) if chart.name == name)
    drawn: dict[str, Any] = json.loads(found.to_json())
    return drawn


def test_the_map_has_every_trial_by_its_fate() -> None:
    record = mixed(20)
    drawn = figure(record, "map")
    by_name = {each["name"]: each for each in drawn["data"]}
    crosses = [found for found in record.trials if found.fate == "diverged"]
    assert by_name["diverged"]["marker"]["symbol"] == "x"
    assert by_name["diverged"]["x"] == [found.values["batch_size"] for found in crosses]
    assert by_name["diverged"]["y"] == [found.values["learning_rate"] for found in crosses]
    assert by_name["pruned"]["marker"]["symbol"] == "circle-open"
    completed = [found for found in record.trials if found.fate == "completed"]
    assert by_name["completed"]["marker"]["color"] == [found.score for found in completed]
    assert record.best is not None
    assert by_name["best"]["x"] == [record.best.values["batch_size"]]
    assert by_name["best"]["marker"]["symbol"] == "star"
    assert drawn["layout"]["xaxis"]["type"] == drawn["layout"]["yaxis"]["type"] == "log"


def test_the_background_is_the_median_of_each_cell() -> None:
    corners = [(8, 1e-4, 1.0), (8, 1e-1, 2.0), (64, 1e-4, 3.0), (64, 1e-1, 4.0)]
    trials = [
        trial(number, values={"batch_size": b, "learning_rate": rate}, score=score + offset)
        for number, (b, rate, score, offset) in enumerate(
            (*corner, off) for corner in corners for off in [0.0] * 9 + [9.0]
        )
    ]
    heat = next(each for each in figure(search(*trials), "map")["data"] if each["type"] == "heatmap")
    assert (len(heat["x"]), len(heat["y"])) == (3, 3)
    assert heat["x"][0] < 8 < heat["x"][1] < 64 < heat["x"][2]
    assert heat["z"] == [[1.0, 3.0], [2.0, 4.0]]
    assert all(each["type"] == "scatter" for each in figure(search(*trials[:29]), "map")["data"])


@pytest.mark.parametrize("name", ["batch_size", "learning_rate"])
def test_the_score_stands_in_for_what_was_not_searched(name: str) -> None:
    drawn = figure(search(trial(0, values={name: 0.5}), trial(1, values={name: 2})), "map")
    assert (drawn["data"][0]["x"], drawn["data"][0]["y"]) == ([0.5, 2.0], [0.1, pytest.approx(0.8)])


def test_curves_are_of_the_objective_or_say_of_what() -> None:
    record = mixed(20)
    lines = figure(record, "curves")["data"]
    assert len(lines) == 19  # all but the one that has not been evaluated
    assert record.best is not None
    assert lines[-1]["name"] == "best"
    assert lines[-1]["y"] == [look.metrics["val_loss"] for look in record.best.history]
    assert all(line["x"] == [640, 1280, 1920] for line in lines)
    timed = search(*record.trials, objective="seconds_to_target")
    assert curve_metric(timed) == "val_loss"
    note = next(chart.note for chart in charts(timed) if chart.name == "curves")
    assert note.startswith("The objective, seconds_to_target, is no metric of an evaluation: val_loss is shown")


def test_parallel_coordinates_hold_every_trial() -> None:
    texts = [trial(n, values={"learning_rate": 10.0**-n, "optimizer": text}) for n, text in enumerate(["sgd", NASTY])]
    record = search(*texts, trial(2, values={"learning_rate": 0.01}, fate="diverged", score=None))
    rate, optimizer, score = figure(record, "parallel")["data"][0]["dimensions"]
    assert rate["label"] == "learning_rate (log)"
    assert rate["values"] == [0.0, -1.0, -2.0]
    assert rate["ticktext"] == ["0.01", "0.1", "1"]
    assert optimizer["ticktext"] == [NASTY[:17] + "…", "sgd", "none"]
    assert [round(place) for place in optimizer["values"]] == [1, 0, -1]
    assert score["ticktext"][-1] == "none"
    assert score["values"][:2] == [0.1, pytest.approx(0.8)]
    assert score["values"][2] == score["tickvals"][-1] > 0.85


ANY_TRIAL = st.builds(
    TrialRecord,
    trial=st.text(max_size=4) | st.just(NASTY),
    values=st.dictionaries(st.sampled_from(["batch_size", "learning_rate", "score", NASTY]), VALUES),
    fate=st.sampled_from(FATES),
    cause=st.none() | st.just(NASTY),
    score=st.none() | st.floats() | st.sampled_from([0.5, 1e308]),
    seconds=st.floats(),
    history=st.lists(
        st.builds(
            Evaluation,
            slice=st.just(1),
            updates=st.integers(0, 10**9),
            examples=st.integers(0, 10**12),
            seconds=st.floats(),
            metrics=st.dictionaries(st.sampled_from(["val_loss", "loss"]), st.floats()),
        ),
        max_size=3,
    ).map(tuple),
)
ANY_TRIALS = st.lists(ANY_TRIAL, max_size=8) | st.lists(ANY_TRIAL, min_size=1, max_size=3).map(lambda few: few * 12)


@settings(deadline=None, max_examples=60)
@given(trials=ANY_TRIALS, direction=st.sampled_from(["min", "max"]))
def test_any_search_can_be_drawn(trials: list[TrialRecord], direction: str) -> None:
    for chart in charts(search(*trials, direction=direction)):
        assert chart.note
        if chart.figure is not None:
            json.loads(chart.figure.to_json(), parse_constant=no_number)  # a trial may be called NaN


def test_scores_may_lie_farther_apart_than_a_float_reaches() -> None:
    record = search(*(trial(n, score=score, values={"batch_size": 1}) for n, score in enumerate([1e-300, 1e9])))
    assert [chart.note for chart in charts(record)]


def no_number(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@settings(deadline=None, max_examples=60)
@given(trials=ANY_TRIALS, direction=st.sampled_from(["min", "max"]))
def test_best_so_far_only_gets_better(trials: list[TrialRecord], direction: str) -> None:
    record = search(*(found for found in trials if found.score != 1e308), direction=direction)
    points = best_points(record)
    scores = [score if direction == "min" else -score for _, score in points]
    assert scores == sorted(scores, reverse=True)
    assert [seconds for seconds, _ in points] == sorted(seconds for seconds, _ in points)


def test_best_so_far_ends_at_the_best() -> None:
    record = mixed(40)
    assert record.best is not None
    points = best_points(record)
    assert points[-1] == (2.0 * 39, record.best.score)
    lucky = search(trial(0, fate="pruned", score=0.01), trial(1, score=0.5), trial(2, fate="diverged", score=None))
    assert best_points(lucky) == [(4.0, 0.5), (6.0, 0.5)]
