"""`tfmb.tune` and `tfmb tune` as a user meets them: results, files, stops and resumes, and errors of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import worker_trials
from worker_trials import X, Y, build

import tfmb
from tfmb.cli import main
from tfmb.errors import ConfigError, DataError, DirectoryError
from tfmb.tuning.result import SearchResult

TUNE: dict[str, Any] = {**worker_trials.TUNE, "max_trials": 4}


def tune(**given: Any) -> SearchResult:
    return tfmb.tune(build, X, Y, **{**TUNE, **given})


def rows(result: SearchResult) -> list[Any]:
    """What of the trials does not depend on the clock."""
    looks = [[(e.slice, e.updates, e.metrics) for e in trial.history] for trial in result.trials]
    return [(t.trial, t.values, t.fate, t.score, look) for t, look in zip(result.trials, looks, strict=True)]


@pytest.mark.compile
def test_the_best_trial_and_its_model(tmp_path: Path) -> None:
    seen: list[int] = []
    result = tune(run_dir=tmp_path / "s", watch=lambda record: seen.append(len(record.trials)))
    assert [trial.fate for trial in result.trials] == ["completed"] * 4
    assert seen[:4] == [1, 2, 3, 4]
    assert result.best.score == min(trial.score for trial in result.trials if trial.score is not None)
    logs = tfmb.evaluate(result.best_model(), X, Y, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "accuracy"}
    best = json.loads((tmp_path / "s" / "best.json").read_text())
    assert best["values"] == result.best.values
    page = (tmp_path / "s" / "report.html").read_text()
    assert len(re.findall(r'data-trial="', page)) >= 4
    assert {path.name for path in (tmp_path / "s" / "tensorboard").iterdir()} == {"0", "1", "2", "3"}


@pytest.mark.compile
def test_the_same_call_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    expected = rows(tune(max_trials=4))
    assert rows(tune(max_trials=2, run_dir=tmp_path / "s")) == expected[:2]
    began = (tmp_path / "s" / "journal.jsonl").read_text().count('"began"')
    assert rows(tune(max_trials=4, run_dir=tmp_path / "s", seed=None)) == expected
    assert (tmp_path / "s" / "journal.jsonl").read_text().count('"began"') == began + 2
    for other, what in (
        ({"batch_size": [8]}, "space"),
        ({"objective": "val_accuracy"}, "objective"),
        ({"seed": 2}, "seed"),
        ({"epochs": 2}, "budget"),
        ({"validation_split": 0.2}, "train"),
    ):
        with pytest.raises(ConfigError, match=f"holds a search with another {what}"):
            tune(run_dir=tmp_path / "s", **other)


@pytest.mark.compile
def test_a_searchs_validation_is_never_trained_on() -> None:
    result = tune(validation_data=(X[:10], Y[:10]), max_trials=1)
    assert result.trials[0].history[0].examples == 80
    assert tune(max_trials=1).trials[0].history[0].examples == 72


@pytest.mark.compile
def test_a_bug_in_the_users_code_ends_the_search_in_one_line_after_three_trials(tmp_path: Path) -> None:
    calls = []

    def broken(hp: Any) -> Any:
        calls.append(hp.Choice("units", [4, 8]))
        if len(calls) > 4:  # after the first trial: three calls find what is asked for
            raise KeyError("my bug")
        return build(hp)

    with pytest.raises(ConfigError, match=r"^3 trials in a row failed, the last one by KeyError: 'my bug': mend it"):
        tfmb.tune(broken, X, Y, **{**TUNE, "max_trials": 6}, run_dir=tmp_path / "s")
    found = tune(run_dir=tmp_path / "s", max_trials=6)  # mended, it goes on past them
    assert [trial.fate for trial in found.trials] == ["completed", *["failed"] * 3, *["completed"] * 2]
    assert [trial.score for trial in found.trials[1:4]] == [None] * 3
    calls.clear()
    with pytest.raises(ConfigError, match=r"^1 trials in a row failed"):
        tfmb.tune(broken, X, Y, **TUNE, max_failures=1)


@pytest.mark.compile
def test_values_for_which_build_fails_are_the_worst_and_the_search_goes_on() -> None:
    def picky(hp: Any) -> Any:
        if hp.Choice("units", [4, 8]) == 8:
            raise MemoryError("no room for 8")
        return build(hp)

    found = tfmb.tune(picky, X, Y, **{**TUNE, "max_trials": 8}, max_failures=8)
    fates = {trial.values["units"]: (trial.fate, trial.cause) for trial in found.trials}
    assert fates == {4: ("completed", None), 8: ("failed", "MemoryError: no room for 8")}
    assert found.best.values["units"] == 4


def test_no_time_is_left() -> None:
    assert tune(timeout=1e-9).trials == ()
    with pytest.raises(ConfigError, match="no trial has a score"):
        _ = tune(timeout=1e-9).best


@pytest.mark.compile
def test_one_search_a_directory(tmp_path: Path) -> None:
    def second(record: Any) -> None:
        with pytest.raises(DirectoryError, match="is in use"):
            tune(run_dir=tmp_path / "s")

    tune(run_dir=tmp_path / "s", watch=second, max_trials=1)


@pytest.mark.compile
def test_time_to_a_target_and_pruning() -> None:
    result = tune(objective="examples:val_accuracy>=0.8", pruning=True, epochs=9, max_trials=6)
    assert result.record.direction == "min"
    assert result.best.score is not None
    assert result.best.score <= 9 * 72


@pytest.mark.compile
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_trials": 0}, "max_trials=0 must be an integer"),
        ({"oracle": "x"}, "unknown oracle 'x'"),
        ({"validation_split": 1.0}, "validation_split=1.0"),
        ({"timeout": -1}, "timeout=-1"),
        ({"objective": "x"}, "objective 'x'"),
        ({"objective": "val_auc"}, "there is only accuracy, loss, val_accuracy, val_loss"),
        ({"pruning": True, "executions_per_trial": 2}, "pruning looks at single trainings"),
        ({"pruning": True, "oracle": "hyperband"}, "prunes by itself"),
        ({"rate": 3}, "'rate' is not an argument of a search"),
        ({"validation_data": X}, r"validation_data must be \(x, y\)"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tune(**given)


@pytest.mark.compile
def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    tune(run_dir=tmp_path / "s", max_trials=1)
    journal = tmp_path / "s" / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"report"', '"rep', 1))
    with pytest.raises(DataError, match="is damaged"):
        tune(run_dir=tmp_path / "s")


def command(folder: Path, *options: str) -> list[str]:
    fixed = ["--dataset", "digits", "--model", "mlp", "--oracle", "random", "--max-trials", "5", "--json"]
    return [sys.executable, "-m", "tfmb", "tune", *fixed, "--run-dir", str(folder), *options]


def finished(folder: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(command(folder, *options), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\ntrial ") >= 1
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.process
def test_a_search_that_is_killed_goes_on_and_its_winner_is_a_run(tmp_path: Path) -> None:
    expected = finished(tmp_path / "whole")
    with subprocess.Popen(command(tmp_path / "s"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        journal = tmp_path / "s" / "journal.jsonl"
        while process.poll() is None and not (journal.exists() and b'"ended"' in journal.read_bytes()):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert journal.read_bytes().count(b'"ended"') < 8
    found = finished(tmp_path / "s", "--retrain", "1,epochs=1")
    assert {key: found[key] for key in ("score", "trial", "values", "trials")} == {
        key: expected[key] for key in ("score", "trial", "values", "trials")
    }
    config = json.loads((Path(found["retrained_run"]) / "run.json").read_text())["config"]
    assert (config["epochs"], config["learning_rate"]) == (1, found["values"]["learning_rate"])
    assert len(found["test_accuracy"]) == 1


@pytest.mark.slow
def test_a_retrained_winner_goes_on_after_a_kill_and_is_not_trained_twice(tmp_path: Path) -> None:
    retrain = ["--retrain", "2,epochs=30"]
    with subprocess.Popen(
        command(tmp_path / "s", *retrain), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not list(tmp_path.glob("s/retrained/trial-*/seed-0/checkpoints/step-*")):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    runs = sorted(tmp_path.glob("s/retrained/trial-*/seed-*"))
    assert [json.loads((run / "run.json").read_text())["status"] for run in runs] == ["running"]
    found = finished(tmp_path / "s", *retrain)
    again = finished(tmp_path / "s", *retrain)
    assert again["test_accuracy"] == found["test_accuracy"]
    runs = sorted(tmp_path.glob("s/retrained/trial-*/seed-*"))
    assert [run.name for run in runs] == ["seed-0", "seed-1"]
    for run in runs:  # each epoch once
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines if "val_loss" in line] == list(range(1, 31))
    other = subprocess.run(
        command(tmp_path / "s", "--retrain", "2,epochs=3"), capture_output=True, text=True, check=False
    )
    assert other.returncode == 2
    assert "seed-0 holds a run with another epochs" in other.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--retrain", "-1"], "--retrain '-1' must be an integer of at least 0"),
        (["--search", "augment=shift=1", "--search", "speed=1"], "--search 'speed=1': give NAME=VALUES, where NAME"),
        (["--search", "optimizer=sgd,momentum=0.9"], "lists what is searched: give --search momentum=0.9"),
        (["--search", "schedule=cosine", "--search", "schedule=step"], "--search schedule is given twice"),
        (["--objective", "val_loss,executions=0"], "--objective executions='0' must be an integer at least 1"),
        (["--batch-size", "a:b"], "--batch-size 'a:b': give a number, several"),
        (["--learning-rate", "1:2:3"], "--learning-rate '1:2:3': give a number"),
        (["--timeout", "soon"], "--timeout 'soon': give seconds, or 90s"),
        (["--timeout", "0s"], "--timeout '0s' must be more than 0"),
        (["--search", "optimizer=lion"], "unknown optimizer 'lion'"),
        (["--learning-rate", "0:1"], "a range goes from a smaller number"),
        (["--objective", "mine"], "objective 'mine': give a metric"),
        (["--oracle", "x", "--dataset", "digits"], "unknown oracle 'x'"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tune", "--dataset", "digits", "--run-dir", str(tmp_path / "s"), *options])
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert words in line
