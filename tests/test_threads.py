"""How many threads an update is fastest with: what is looked at, what is kept, and the command that begins again."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tfmb.cli import app, main, threads
from tfmb.environment.console import OWN_PROCESS
from tfmb.errors import ConfigError
from tfmb.jobs.config import TrainConfig
from tfmb.training.execution import jit_trial

pytestmark = pytest.mark.usefixtures("fresh_keras")

LONG = 1e6  # seconds, which are worth any measurement
CONFIG = TrainConfig(dataset="digits", model="mlp")

# The command with a short training that counts as worth the trial, and children whose answer is given.
COMMAND = """
import sys
from tfmb.cli import main, threads

threads._seconds_with = lambda config, count, compiled: 0.001 * count
threads.cores, threads._WORTH_SECONDS_A_CHILD = lambda: 2, 0.0
command = sys.modules["tfmb.cli.train"]
command.cores, start = threads.cores, command.start_tensorflow

def start_with_short_trials(count=None):
    start(count)
    from tfmb.training.execution import jit_trial
    jit_trial._WORTH_SECONDS, jit_trial._WORTH_UPDATES, jit_trial._TIMED_SECONDS = 0.0, 1, 0.01

command.start_tensorflow = start_with_short_trials
sys.exit(main())
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Two cores, on which one thread is said to be faster; the numbers of threads that a child was asked for."""
    monkeypatch.setenv("TFMB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    made: list[int] = []

    def given(config: TrainConfig, count: int, compiled: str) -> float:
        made.append(count)
        return 0.001 * count

    monkeypatch.setattr(threads, "_seconds_with", given)
    return made


def test_answer_is_kept_for_the_same_work(asked: list[int]) -> None:
    assert threads.known_threads(CONFIG) is None
    assert threads.fewer_threads(CONFIG, "call", LONG) == {1: 0.001, 2: 0.002}
    assert threads.known_threads(CONFIG) == {1: 0.001, 2: 0.002}
    assert threads.known_threads(dataclasses.replace(CONFIG, epochs=7, learning_rate=0.1, seed=3)) is not None
    assert threads.fewer_threads(CONFIG, "call", LONG) is None
    assert asked == [1, 2]
    for other in (
        {"batch_size": 32},
        {"augment": "shift=1"},
        {"model": "cnn"},
        {"optimizer": "sgd"},
        {"precision": "mixed_bfloat16"},
    ):
        assert threads.known_threads(dataclasses.replace(CONFIG, **other)) is None


def test_short_training_is_not_worth_it(asked: list[int]) -> None:
    assert threads.fewer_threads(CONFIG, "call", 599.0) is None
    assert not asked
    assert threads.fewer_threads(CONFIG, "call", 600.0) is not None


def test_one_core_leaves_no_choice(asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 1)
    assert threads.fewer_threads(CONFIG, "call", LONG) is None
    assert not asked


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 2},
        {"deterministic": True},
        {"virtual_replicas": 2},
        {"micro_batch_size": 8},
        {"strategy": "multi-worker"},
    ],
)
def test_nothing_is_chosen_where_it_was_said_or_bits_must_stay(asked: list[int], options: dict[str, Any]) -> None:
    threads.fewer_threads(CONFIG, "call", LONG)
    config = dataclasses.replace(CONFIG, **options)
    assert threads.known_threads(config) is None
    assert threads.fewer_threads(config, "call", LONG) is None
    assert asked == [1, 2]


@pytest.mark.parametrize("variable", ["TF_NUM_INTRAOP_THREADS", "TF_CONFIG"])
def test_environment_may_say_it(asked: list[int], variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "{}")
    assert threads.fewer_threads(CONFIG, "call", LONG) is None
    assert not asked


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", '{"1": "x", "2": 1}', '{"1": 0.1}', '{"one": 1, "2": 1}'),
        *('{"1": 0.1, "2": 0.2, "100000": 0.01}', '{"1": 0.1, "2": 0.2, "-5": 0.01}', '{"1": 0.1, "2": -1}'),
        *('{"1": NaN, "2": 1}', '{"1": 1e999, "2": 1}', "[" * 10**5, '{"1": ' + "1" * 400 + "0" * 400 + "}"),
    ],
    ids=range(12),
)
def test_damaged_answer_is_measured_anew(asked: list[int], content: str, tmp_path: Path) -> None:
    threads.fewer_threads(CONFIG, "call", LONG)
    (path,) = (tmp_path / "cache" / "threads").iterdir()
    path.write_text(content)
    assert threads.known_threads(CONFIG) is None
    assert threads.fewer_threads(CONFIG, "call", LONG) == {1: 0.001, 2: 0.002}


@pytest.mark.parametrize(("seconds", "best"), [({1: 0.94, 2: 1.0}, 1), ({1: 0.96, 2: 1.0}, 2), ({1: 3.0, 2: 1.0}, 2)])
def test_fewer_threads_must_be_faster_by_a_share(asked: list[int], seconds: dict[int, float], best: int) -> None:
    assert threads.described(seconds).startswith(f"threads: {best} (measured, an update: ")


@pytest.mark.slow
def test_command_begins_again_with_fewer_threads_and_remembers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMMAND, "train", "--dataset", "digits", "--model", "mlp", "--epochs", "1"]
    for name in ("a", "b"):
        done = subprocess.run(
            [*command, "--run-dir", name],
            cwd=tmp_path,
            env={**os.environ, "TFMB_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert record["config"]["threads"] == record["numerics"]["intra_op_threads"] == 1
        assert record["status"] == "finished"
        assert done.stderr.count("tfmb: threads: 1 (measured, an update: 1 ms with 1, 2 ms with 2)") == 1
        assert done.stderr.count(f"tfmb: run: {name}\n") == (2 if name == "a" else 1)  # `a` began again


@pytest.fixture
def worth_it(asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training is worth a trial, of which all candidates are given, and that of threads."""
    monkeypatch.setattr(threads, "_WORTH_SECONDS_A_CHILD", 0.0)
    monkeypatch.setattr(sys.modules["tfmb.cli.train"], "cores", lambda: 2)
    monkeypatch.setattr(jit_trial, "_WORTH_UPDATES", 1)
    monkeypatch.setattr(jit_trial, "_trial", lambda *_: {"nothing": 0.1, "update": 0.2})


def train(run_dir: Path) -> dict[str, Any]:
    """The record of a training by a command that has this process for itself."""
    command = ["train", "--dataset", "digits", "--model", "mlp", "--epochs", "1", "--run-dir", str(run_dir)]
    app(args=command, obj=OWN_PROCESS, standalone_mode=False)
    record: dict[str, Any] = json.loads((run_dir / "run.json").read_text())
    assert record["status"] == "finished"
    return record


@pytest.mark.compile
@pytest.mark.usefixtures("worth_it")
def test_one_thread_a_core_stays_where_it_is_fastest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threads, "_seconds_with", lambda config, count, compiled: 0.002 / count)
    assert train(tmp_path / "a")["config"]["threads"] is None
    assert train(tmp_path / "b")["config"]["threads"] is None
    assert capsys.readouterr().err.count("tfmb: threads: 2 (measured, an update: 2 ms with 1, 1 ms with 2)") == 2


@pytest.mark.compile
@pytest.mark.usefixtures("worth_it")
def test_measurement_that_fails_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> float:
        raise ConfigError("the profile with 1 thread(s) failed")

    monkeypatch.setattr(threads, "_seconds_with", fail)
    train(tmp_path / "a")
    said = capsys.readouterr().err
    assert "warning: the profile with 1 thread(s) failed; the training goes on with one thread a core" in said


@pytest.mark.compile
@pytest.mark.usefixtures("worth_it")
def test_command_that_another_program_calls_never_begins_again(tmp_path: Path, asked: list[int]) -> None:
    command = ["train", "--dataset", "digits", "--model", "mlp", "--epochs", "1", "--run-dir"]
    assert main([*command, str(tmp_path / "a")]) == 0
    assert not asked
    # Nor does it set what a TensorFlow that has started refuses, though the answer is known.
    assert threads.fewer_threads(CONFIG, "nothing", LONG) == {1: 0.001, 2: 0.002}
    assert main([*command, str(tmp_path / "b")]) == 0


@pytest.mark.process
def test_child_times_an_update() -> None:
    seconds = threads._seconds_with(CONFIG, 1, "call")
    assert 0 < seconds < 10


@pytest.mark.process
def test_child_that_fails_is_told() -> None:
    with pytest.raises(ConfigError, match=r"the profile with 1 thread\(s\) failed \(--model no_such_module"):
        threads._seconds_with(TrainConfig(model="no_such_module:build"), 1, "nothing")


@pytest.mark.compile
@pytest.mark.parametrize(("seconds", "advised"), [(1e-9, True), (1e9, False)])
def test_doctor_advises_fewer_threads_where_they_are_faster(
    seconds: float, advised: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(threads, "_seconds_with", lambda config, count, compiled: seconds)
    assert main(["doctor", "--profile", "--model", "mlp", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["profile"]
    assert found["advice"].endswith("; --threads 1") == advised
