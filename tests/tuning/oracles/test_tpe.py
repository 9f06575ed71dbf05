"""Optuna's TPE as an oracle: in every value that a space has, conditional ones too, and the same from a journal."""

import math
from pathlib import Path
from typing import Any

import pytest
from fake_trials import look

from tfmb.tuning.objective import Objective
from tfmb.tuning.oracles.make import make_oracle
from tfmb.tuning.space import hyperparameters

pytest.importorskip("optuna", reason="the extra optuna is not installed")


def space() -> Any:
    hp = hyperparameters()
    hp.Float("learning_rate", 1e-4, 1e-1, sampling="log")
    hp.Float("share", 0.0, 1.0, step=0.25)
    hp.Int("batch_size", 16, 256, step=2, sampling="log")
    hp.Choice("kind", ["a", "b"])
    hp.Boolean("bias")
    hp.Fixed("optimizer", "adam")
    with hp.conditional_scope("kind", ["b"]):
        hp.Choice("width", [1, 2, 4])
    return hp


def oracle(folder: Path, journal: Any) -> Any:
    found = make_oracle("tpe", space(), Objective.parse("val_loss"), 30, 1, 5)
    found._set_project_dir(str(folder), "trials")
    found.begin(journal, Objective.parse("val_loss"), 1, 30, None)
    return found


def run(found: Any, trials: int) -> list[dict[str, Any]]:
    values = []
    for _ in range(trials):
        trial = found.create_trial("worker-0")
        values.append(dict(trial.hyperparameters.values))
        loss = math.log10(values[-1]["learning_rate"] / 0.01) ** 2 + (values[-1]["kind"] == "a")
        found.report(trial.trial_id, look(val_loss=loss))
        trial.status = "COMPLETED"
        found.end_trial(trial)
    return values


def test_values_are_of_the_space_and_get_better(tmp_path: Path) -> None:
    from tfmb.tuning.oracles.journal import Journal

    with Journal(tmp_path / "journal.jsonl") as journal:
        values = run(oracle(tmp_path, journal), 30)
    for found in values:
        assert 1e-4 <= found["learning_rate"] <= 1e-1
        assert found["share"] in (0.0, 0.25, 0.5, 0.75, 1.0)
        assert found["batch_size"] in (16, 32, 64, 128, 256)
        assert isinstance(found["batch_size"], int)
        assert found["optimizer"] == "adam"
        assert ("width" in found) == (found["kind"] == "b")
    assert sum(found["kind"] == "b" for found in values[15:]) > 10
    near = [abs(math.log10(found["learning_rate"] / 0.01)) for found in values]
    assert sum(near[20:]) / 10 < sum(near[:10]) / 10


@pytest.mark.parametrize("stop", [1, 11, 17])
def test_a_search_that_was_stopped_tries_what_it_would_have_tried(stop: int, tmp_path: Path) -> None:
    from tfmb.tuning.oracles.journal import Journal

    with Journal(tmp_path / "whole.jsonl") as journal:
        whole = run(oracle(tmp_path / "a", journal), 20)
    with Journal(tmp_path / "cut.jsonl") as journal:
        begun = run(oracle(tmp_path / "b", journal), stop)
    with Journal(tmp_path / "cut.jsonl") as journal:
        rest = run(oracle(tmp_path / "c", journal), 20 - stop)
    assert begun + rest == whole
