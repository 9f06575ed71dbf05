"""`workers=N` with real processes: the same trials, and what becomes of the search when a process dies."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worker_trials
from cases import here
from search_processes import is_alive, workers_of
from worker_trials import MARK, TUNE, X, Y

import tfmb
from tfmb.backend import keras
from tfmb.data.source import Source
from tfmb.errors import ConfigError, DataError, PeerLostError
from tfmb.tuning import by_value, handover
from tfmb.tuning.budget import Budget
from tfmb.tuning.job import TuneConfig
from tfmb.tuning.result import SearchResult
from tfmb.tuning.space import Space
from tfmb.tuning.trial import SearchTask

MUCH, LOCK = bytes(65 * 2**20), threading.Lock()


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("it holds a socket")


def tune(build: Any = worker_trials.build, **given: Any) -> SearchResult:
    return tfmb.tune(build, X, Y, **{**TUNE, "workers": 2, **given})


@pytest.mark.process
@pytest.mark.sample
def test_two_workers_do_what_one_process_does(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    alone = tune(workers=1)
    seen: list[int] = []
    found = tune(run_dir=tmp_path / "s", watch=lambda record: seen.append(len(record.trials)))
    assert [(t.trial, t.values, t.fate) for t in found.trials] == [(t.trial, t.values, t.fate) for t in alone.trials]
    for one, other in zip(found.trials, alone.trials, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-5)
    assert {trial.worker for trial in found.trials} <= {"worker-0", "worker-1"}
    assert seen
    assert seen == sorted(seen)
    logs = tfmb.evaluate(found.best_model(), X, Y, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "accuracy"}
    assert not (tmp_path / "s" / handover.FOLDER).exists()
    again = tune(run_dir=tmp_path / "s", workers=3, max_trials=6)
    assert again.record.trials == found.record.trials
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err


@pytest.mark.process
def test_a_loss_and_metrics_are_handed_on_and_arrays_in_a_dict() -> None:
    given: dict[str, Any] = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    given |= {"metrics": ["accuracy"], "max_trials": 2, "objective": "val_accuracy", "workers": 2}
    found = tfmb.tune(worker_trials.build_pair, {"a": X, "b": X}, Y, **{**TUNE, **given})
    assert [trial.fate for trial in found.trials] == ["completed"] * 2


@pytest.mark.process
def test_what_a_cell_defines_is_handed_on_by_value() -> None:
    class Twice(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return factor * inputs

    def built(hp: Any) -> Any:
        return keras.Sequential([keras.Input((5,)), Twice(), keras.layers.Dense(hp.Choice("units", units))])

    def far_off(y_true: Any, y_pred: Any) -> Any:
        return factor * keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)

    factor, units = 2.0, [2, 3]
    given: dict[str, Any] = {"loss": far_off, "max_trials": 2}
    found, alone = tune(built, **given), tune(built, workers=1, **given)
    assert [trial.fate for trial in found.trials] == ["completed"] * 2
    assert {trial.worker for trial in found.trials} <= {"worker-0", "worker-1"}
    for one, other in zip(found.trials, alone.trials, strict=True):
        assert (one.values, one.score) == (other.values, pytest.approx(other.score, rel=1e-5))


def test_what_can_be_imported_is_handed_on_by_its_name() -> None:
    packed = by_value.pack_function(worker_trials.build, "build")
    assert packed == {"import": "worker_trials:build"}
    assert by_value.unpack(packed, "build") is worker_trials.build


def test_a_value_that_a_worker_cannot_make_is_one_line() -> None:
    packed = by_value.pack_function(lambda hp: worker_trials.build(hp), "build")
    assert set(packed) == {"pickle"}
    assert by_value.unpack(packed, "build") is not worker_trials.build
    damaged = {"pickle": packed["pickle"][:40]}
    with pytest.raises(ConfigError, match=r"^a worker cannot make build \(.*\): define it in a module"):
        by_value.unpack(damaged, "build")


@pytest.mark.slow
def test_a_bug_in_the_users_code_ends_the_search(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"^worker-\d: KeyError: 'my bug'"):
        tune(worker_trials.build_broken, run_dir=tmp_path / "s")
    assert re.search(r"\[worker-\d\] Traceback", capfd.readouterr().err)
    assert workers_of(os.getpid()) == []
    with pytest.raises(MemoryError, match="no room"):
        tune(worker_trials.build_out_of_memory, run_dir=tmp_path / "s")
    assert len(tune(run_dir=tmp_path / "s").trials) == 6  # mended, it goes on


@pytest.mark.process
def test_a_worker_that_dies_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    found = tune(worker_trials.build_dies_once, run_dir=tmp_path / "s")
    assert (tmp_path / "mark").exists()
    assert [trial.fate for trial in found.trials] == ["completed"] * 6
    ended = [json.loads(line) for line in (tmp_path / "s" / "journal.jsonl").read_text().splitlines()]
    trials = [event["trial"] for event in ended if event["event"] == "ended"]
    assert sorted(trials) == sorted(set(trials))


@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_ends_the_search(tmp_path: Path) -> None:
    words = r"worker-\d died 3 times in a row by SIGKILL \(out of memory\?\), the last time in trial \d"
    with pytest.raises(PeerLostError, match=words):
        tune(worker_trials.build_dies, run_dir=tmp_path / "s")
    assert workers_of(os.getpid()) == []
    assert len(tune(run_dir=tmp_path / "s").trials) == 6


def command(folder: Path, *options: str) -> list[str]:
    fixed = ["--dataset", "digits", "--model", "mlp", "--oracle", "random", "--max-trials", "6", "--epochs", "3"]
    return [sys.executable, "-m", "tfmb", "tune", *fixed, "--json", "--run-dir", str(folder), *options]


ENDS = here([(signal.SIGKILL, -9), (signal.SIGTERM, 75), (signal.SIGINT, 130)], [(signal.SIGKILL, -9)], several=True)


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), ENDS)
def test_workers_end_with_the_chief_and_the_search_goes_on(number: int, code: int, tmp_path: Path) -> None:
    def heed() -> None:  # whoever runs the tests in the background may have it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    # trials of seconds each: most of the search is still to come when the first of them has ended
    whole = command(tmp_path / "s", "--workers", "2", "--no-prune", "--epochs", "40")
    with subprocess.Popen(whole, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as process:
        journal = tmp_path / "s" / "journal.jsonl"
        while process.poll() is None and not (journal.exists() and b'"ended"' in journal.read_bytes()):
            time.sleep(0.02)
        workers = workers_of(process.pid)
        assert len(workers) == 2, f"{process.poll()}: {journal.read_text()[-2000:]}"
        os.kill(process.pid, number)
        assert process.wait(20) == code
        end = time.monotonic() + 30
        while any(map(is_alive, workers)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not any(map(is_alive, workers))
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    if number != signal.SIGKILL:
        return  # the journal is the same whatever ended it
    done = subprocess.run(whole, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"] == 6
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    new = [event["trial"] for event in events if event["event"] == "began" and event["new"]]
    assert sorted(new) == [str(trial) for trial in range(6)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"workers": 0}, "workers=0 must be an integer"),
        (
            {"build": lambda hp: LOCK},
            r"^build cannot be handed to workers \(.*lock.*\): let it make",
        ),
        ({"build": lambda hp: MUCH}, "^build uses 65 MiB of this process's values, and workers take at most 64"),
        ({"build": keras.Sequential()}, "^build is a Sequential: give a function"),
        ({"build": worker_trials.build_plain, "loss": Unpicklable()}, "^loss cannot be handed to workers"),
        ({"strategy": object()}, "give strategy by name"),
    ],
)
def test_what_cannot_be_handed_over_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tune(**given)


def test_settings_come_back_as_they_were_and_nothing_else_is_taken() -> None:
    space = Space(
        batch_size=(16, 64),
        learning_rate=[1e-3, 1 / 3],
        augment=["", "shift=2"],
        optimizer="momentum",
        momentum=(0.1, 0.9),
    )
    for settings in (TuneConfig(space=space, dropout=(0.1, 0.5), timeout=1 / 3), Budget(amount=3, slices=9)):
        found = json.loads(json.dumps(handover.to_json(settings)))
        assert handover.from_json(type(settings), found) == settings
        with pytest.raises(ConfigError, match="is not made of more"):
            handover.from_json(type(settings), {**found, "more": 1})
        with pytest.raises(ConfigError, match="is not made of"):
            handover.from_json(type(settings), [])
    with pytest.raises(ConfigError, match="'Popen' is nothing that is handed"):
        handover.from_json(Budget, {"amount": {"Popen": []}, "unit": "epochs", "slices": 1})


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    tree = {"a": X, "b": [X[:, 0], (Y, X.astype("float64"))]}
    source = Source.from_arrays(tree, Y, name="mine")
    task = SearchTask(
        build=worker_trials.build,
        train=source,
        validation=source,
        budget=Budget(amount=1),
        space=Space(),
        strategy=None,
        loss="mse",
    )
    told = json.loads(json.dumps(handover.pack_task(task, "auto", None, tmp_path)))
    found = handover.unpack_task(told, tmp_path)
    assert Source.from_arrays(found.train.examples, found.train.labels).fingerprint == source.fingerprint
    assert isinstance(found.train.examples["b"][1], tuple)
    assert found.train.examples["a"].dtype == np.float32
    assert (found.loss, found.build, found.train.name) == ("mse", worker_trials.build, "mine")
    (tmp_path / handover.FOLDER / "train-labels.npy").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match="cannot be read"):
        handover.unpack_task(told, tmp_path)
    handover.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"strategy": "multi-worker"}])
def test_two_kinds_of_workers_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="strategy 'multi-worker' splits one training"):
        tune(run_dir=tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


@pytest.mark.process
def test_a_worker_removes_the_socket_of_a_chief_that_died(tmp_path: Path) -> None:
    """It ends as soon as its standard input does; of a chief that is only silent the socket must stay (slow tests)."""
    socket = tmp_path / "door" / "socket"
    socket.parent.mkdir()
    socket.touch()
    told = {"chief": f"unix:{socket}", "path": sys.path, "cores": [], "threads": 1}
    command = [sys.executable, "-m", "tfmb.tuning.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stderr is not None
        worker.stdin.write(json.dumps(told) + "\n")
        worker.stdin.close()
        assert worker.wait(timeout=60) == PeerLostError.exit_code
        assert worker.stderr.read() == "the search's chief is gone\n"
    assert not socket.parent.exists()
