"""Oracles that finish, learn from trials that diverged, and come back to where they were from any event."""

import json
from pathlib import Path
from typing import Any

import pytest
from cases import here
from fake_trials import SLICES, FakeTrainer, Sessions, look, space, table

from tfmb.errors import ConfigError, DataError
from tfmb.tuning.objective import Objective
from tfmb.tuning.oracles.journal import Journal
from tfmb.tuning.oracles.make import ORACLES, make_oracle

KINDS = [
    ("bayesian", False),
    ("bayesian", True),
    ("random", False),
    ("random", True),
    ("grid", False),
    ("hyperband", False),
]
ids = [f"{kind}{', pruned' if pruned else ''}" for kind, pruned in KINDS]


@pytest.mark.compile
@pytest.mark.parametrize(("kind", "pruned"), here(KINDS, [("bayesian", True), ("grid", False)], several=True), ids=ids)
def test_every_prefix_of_the_journal_leads_to_the_same_end(kind: str, pruned: bool, tmp_path: Path) -> None:
    most = 8 if kind == "bayesian" else 12  # of which the last two are the Gaussian process's
    whole = Sessions(kind, tmp_path / "whole", pruned, most)
    whole.folder.mkdir()
    expected = whole.run()
    lines = (whole.folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) > 20
    # The Gaussian process costs seconds: a few resumes of it will do.
    cuts = range(0, len(lines) + 1, 1 if kind != "bayesian" else 23)
    for cut in cuts:
        again = Sessions(kind, tmp_path / f"cut-{cut}", pruned, most)
        again.folder.mkdir()
        (again.folder / "journal.jsonl").write_bytes(b"".join(lines[:cut]))
        assert again.run() == expected, cut
        ended = [json.loads(line) for line in (again.folder / "journal.jsonl").read_bytes().splitlines()]
        turns = [(e["trial"], e["event"]) for e in ended if e["event"] == "ended"]
        if not pruned:
            assert len(turns) == len(set(turns)) == len(expected)  # counted once


@pytest.mark.slow
@pytest.mark.parametrize("kind", ORACLES)
@pytest.mark.parametrize("objective", ["val_loss", "val_accuracy"])
def test_no_search_is_aborted_and_no_trial_that_diverged_looks_good(kind: str, objective: str, tmp_path: Path) -> None:
    sessions = Sessions(kind, tmp_path, most=14, objective=objective)
    with Journal(tmp_path / "journal.jsonl") as journal:
        oracle = sessions.oracle(journal)
        sessions.search(oracle)
        fates = {trial: progress.fate for trial, progress in oracle.progress.items()}
        assert "diverged" in fates.values()
        ranked = [trial.trial_id for trial in oracle.get_best_trials(100)]
        bad = [fates[trial] == "diverged" for trial in ranked]
        oracle._rescore()
        assert bad == sorted(bad)
        assert oracle.progress[ranked[-1]].cause == "the loss or a gradient became NaN or infinite at update 7"


def test_hyperband_goes_on_for_as_many_trials_as_were_asked_for(tmp_path: Path) -> None:
    assert len(Sessions("hyperband", tmp_path, most=40).run()) == 40


@pytest.mark.slow
def test_bayesian_search_learns_where_trials_diverge(tmp_path: Path) -> None:
    found = Sessions("bayesian", tmp_path, most=24).run()
    fates = [fate for _, _, fate, _, _ in found]
    assert fates[:10].count("diverged") >= 2
    assert fates[10:].count("completed") >= 0.5 * len(fates[10:])
    best = min((row for row in found if row[2] == "completed"), key=lambda row: row[4][-1].metrics["val_loss"])
    assert 0.001 < best[1]["learning_rate"] < 0.009


def test_all_trials_may_diverge(tmp_path: Path) -> None:
    sessions = Sessions("bayesian", tmp_path, most=9)
    sessions.trainer = FakeTrainer(most=0.0)
    assert {fate for _, _, fate, _, _ in sessions.run()} == {"diverged"}


def test_pruning_trains_the_best_to_the_end_and_the_others_a_little(tmp_path: Path) -> None:
    sessions = Sessions("random", tmp_path, pruning=True, most=30)
    found = sessions.run()
    done = {trial: len(history) for trial, _, _, _, history in found}
    assert sum(done.values()) < 0.5 * 30 * SLICES
    assert set(done.values()) <= {0, 1, 3, SLICES}
    finite = [row for row in found if row[4]]
    at_first = min(finite, key=lambda row: row[4][0].metrics["val_loss"])
    assert done[at_first[0]] == SLICES
    assert len(set(sessions.trainer.ran)) == len(sessions.trainer.ran)  # no slice was trained twice


@pytest.fixture
def begun(tmp_path: Path) -> Any:
    sessions = Sessions("random", tmp_path)
    with Journal(tmp_path / "journal.jsonl") as journal:
        yield sessions.oracle(journal)


@pytest.mark.parametrize(
    ("trial", "evaluation"),
    [
        ("../x", look()),
        ("11", look()),
        (None, look(0)),
        (None, look(SLICES + 1)),
        (None, look(val_loss=float("nan"))),
        (None, look(val_loss=float("inf"))),
    ],
)
def test_a_bad_call_is_refused_and_holds_no_lock(trial: Any, evaluation: Any, begun: Any) -> None:
    running = begun.create_trial("worker-0")
    before = table(begun)
    with pytest.raises(ConfigError, match="trial"):
        begun.report(running.trial_id if trial is None else trial, evaluation)
    with pytest.raises(ConfigError, match="ends without an evaluation"):
        begun.end_trial(running)
    assert table(begun) == before
    begun.report(running.trial_id, look())
    begun.end_trial(running)
    assert begun.create_trial("worker-0").trial_id != running.trial_id


def test_the_trial_of_a_lost_worker_goes_to_the_next_one(begun: Any) -> None:
    first, second = begun.create_trial("worker-0"), begun.create_trial("worker-1")
    begun.report(first.trial_id, look())
    begun.give_back("worker-0")
    begun.give_back("worker-0")
    assert begun.create_trial("worker-2").trial_id == first.trial_id
    begun.report(first.trial_id, look())  # told again: it counts once
    assert len(begun.progress[first.trial_id].history) == 1
    assert begun.create_trial("worker-1").trial_id == second.trial_id  # it asks again: it has one


def test_no_trial_of_workers_that_are_gone_is_forgotten(tmp_path: Path) -> None:
    sessions = Sessions("random", tmp_path, most=4)
    with Journal(tmp_path / "journal.jsonl") as journal:
        oracle = sessions.oracle(journal)
        first, second = oracle.create_trial("worker-0"), oracle.create_trial("worker-1")
        oracle.give_back("worker-0")
        oracle.give_back("worker-1")
        assert oracle.create_trial("worker-0").trial_id == second.trial_id
    with Journal(tmp_path / "journal.jsonl") as journal:
        oracle = sessions.oracle(journal)
        assert {oracle.create_trial(name).trial_id for name in "ab"} == {first.trial_id, second.trial_id}


def test_a_lost_worker_whose_turn_was_over_has_ended_its_trial(begun: Any) -> None:
    trial = begun.create_trial("worker-0")
    for number in range(1, SLICES + 1):
        begun.report(trial.trial_id, look(number))
    begun.give_back("worker-0")
    assert begun.end_order == [trial.trial_id]
    assert begun.create_trial("worker-0").trial_id != trial.trial_id


def test_a_trial_that_failed_has_its_cause_and_is_the_worst(begun: Any, tmp_path: Path) -> None:
    good, bad, worse = (begun.create_trial(f"worker-{number}") for number in range(3))
    begun.report(good.trial_id, look(val_loss=9.0))
    begun.cut_short(bad.trial_id, "failed", "KeyError: 'my bug'")
    begun.cut_short(worse.trial_id, "diverged", "the loss became NaN at update 7")
    for trial in (bad, worse, good):
        begun.end_trial(trial)
    found = {trial: (progress.fate, progress.cause) for trial, progress in begun.progress.items()}
    assert found[bad.trial_id] == ("failed", "KeyError: 'my bug'")
    assert found[worse.trial_id] == ("diverged", "the loss became NaN at update 7")
    assert begun.get_best_trials(1)[0].trial_id == good.trial_id
    assert begun.trials[bad.trial_id].score > 9.0
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert table(Sessions("random", tmp_path).oracle(journal)) == table(begun)


@pytest.mark.parametrize(
    ("number", "fate", "cause"),
    [
        (1.0, "diverged", "the loss or a gradient became NaN or infinite at update 7"),
        (2.0, "diverged", "the loss rose far above its start at update 7"),
    ],
)
def test_a_journal_of_an_earlier_version_has_numbers_for_fates(
    number: float, fate: str, cause: str, tmp_path: Path
) -> None:
    Sessions("random", tmp_path).run()
    path, lines = tmp_path / "journal.jsonl", []
    for event in Sessions("random", tmp_path).events():
        old = {"event": "fate", "trial": event.get("trial"), "fate": number, "update": 7, "words": ""}
        lines.append(json.dumps(old if event["event"] == "fate" else event))
    path.write_text("\n".join(lines) + "\n")
    with Journal(path) as journal:
        found = table(Sessions("random", tmp_path).oracle(journal))
    assert {(row[2], row[3]) for row in found} == {("completed", None), (fate, cause)}


def test_a_trial_that_waits_is_called_only_when_its_turn_is_over(tmp_path: Path) -> None:
    sessions = Sessions("random", tmp_path, pruning=True)
    with Journal(tmp_path / "journal.jsonl") as journal:
        oracle = sessions.oracle(journal)
        names = ["a", "b", "c", "d"]
        trials = [oracle.create_trial(name).trial_id for name in names]
        for trial, loss in zip(trials, (1.0, 5.0, 0.5, 3.0), strict=True):
            oracle.report(trial, look(val_loss=loss))
        # The third is the best, and trains on; the second waits, but its worker has not said so yet.
        oracle.halving._waiting[trials[2]] = 1
        assert oracle.create_trial("e").trial_id not in trials


@pytest.mark.parametrize(
    "event",
    [
        {"event": "ended", "trial": "9", "seconds": 1, "score": 1},
        {"event": "began"},
        {"event": "began", "trial": "0", "worker": "w", "new": False, "values": {}},
        {"event": "report", "trial": "0", "slice": 1, "metrics": {}},
    ],
)
def test_a_journal_that_makes_no_sense_is_told(event: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text(json.dumps(event) + "\n")
    with Journal(tmp_path / "journal.jsonl") as journal, pytest.raises(DataError, match="makes no sense"):
        Sessions("random", tmp_path).oracle(journal)


def test_a_grid_needs_steps() -> None:
    with pytest.raises(ConfigError, match="a grid needs steps: give learning_rate a list of values"):
        make_oracle("grid", space("random"), Objective.parse("val_loss"), 3, 1, 0)
    with pytest.raises(ConfigError, match="unknown oracle 'x': give bayesian, random"):
        make_oracle("x", space("random"), Objective.parse("val_loss"), 3, 1, 0)


def test_keras_tuners_own_files_are_beside(tmp_path: Path) -> None:
    Sessions("random", tmp_path, most=3).run()
    kept = json.loads((tmp_path / "trials" / "trial_1" / "trial.json").read_text())
    assert kept["status"] == "COMPLETED"
    assert "val_loss" in kept["metrics"]["metrics"]
    assert (tmp_path / "trials" / "oracle.json").exists()
