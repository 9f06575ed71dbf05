"""Workers that are killed or hang: each rank, at any time, by hand and under the launcher. Minutes long."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worker_runs import KILLS, SOON, TRAIN, Workers, children, error_line, is_alive, status, wait_for_updates

SCRIPT = """
import sys
import tfmb
from tfmb.backend import keras, tf

def build():
    model = tfmb.models.MODELS["mlp"]((28, 28, 1), 10, seed=0)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model

train = tfmb.data.load("digits").train
try:
    tfmb.fit(build, train.examples.astype("float32"), train.labels, epochs=10000, strategy="multi-worker",
             run_dir=sys.argv[2], verbose=0)
except tfmb.errors.PeerLostError as error:
    assert isinstance(error.__cause__, tf.errors.OpError)
    print("caught", error.exit_code, error, file=sys.stderr)
    raise
"""


@pytest.mark.parametrize("number", KILLS, ids=lambda number: number.name)
@pytest.mark.parametrize("lost", [0, 1])
def test_survivor_ends_by_itself(lost: int, number: signal.Signals, tmp_path: Path) -> None:
    with Workers(tmp_path) as workers:
        workers.lose(lost, number)
        code, stderr = workers.end_of(1 - lost)
        assert code == 69, stderr
        assert error_line(stderr).startswith(f"tfmb: error[69]: lost {workers.name(lost)} (")
    assert status(workers.run) == ("failed" if lost == 1 else "running")


@pytest.mark.parametrize("number", KILLS, ids=lambda number: number.name)
@pytest.mark.parametrize("lost", [0, 1])
def test_launcher_ends_all(lost: int, number: signal.Signals, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "tfmb", "launch", "--workers", "2", "--", *TRAIN, "--run-dir", str(run)]
    with (tmp_path / "errors").open("w") as errors:
        launcher = subprocess.Popen(
            command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, stdout=subprocess.DEVNULL, stderr=errors
        )
    try:
        wait_for_updates(run, [launcher])
        workers = children(launcher.pid)
        os.kill(workers[lost], number)
        begin = time.monotonic()
        while is_alive(-workers[1 - lost]):
            assert time.monotonic() - begin < SOON
            time.sleep(0.1)
        code = launcher.wait(timeout=SOON)
    finally:
        launcher.terminate()
        launcher.wait()
    err = (tmp_path / "errors").read_text()
    assert code == (128 + number if number == signal.SIGKILL else 69)
    assert error_line(err).startswith(f"[{1 - lost}] tfmb: error[69]: lost worker {lost} (127.0.0.1:")
    assert not any(is_alive(-pid) for pid in workers)


@pytest.mark.parametrize("number", KILLS, ids=lambda number: number.name)
def test_all_three_survivors_name_the_one(number: signal.Signals, tmp_path: Path) -> None:
    lost = random.randrange(4)
    with Workers(tmp_path, count=4) as workers:
        workers.lose(lost, number)
        for rank in set(range(4)) - {lost}:
            code, stderr = workers.end_of(rank)
            assert code == 69, stderr
            assert workers.name(lost) in error_line(stderr)


@pytest.mark.parametrize("lost", [0, 1])
def test_script_gets_an_error_it_can_catch(lost: int, tmp_path: Path) -> None:
    with Workers(tmp_path, command=[sys.executable, "-c", SCRIPT]) as workers:
        workers.lose(lost, signal.SIGKILL)
        code, stderr = workers.end_of(1 - lost)
    assert code == 1  # of any error that is not caught
    assert f"caught 69 lost {workers.name(lost)} (" in stderr
    assert stderr.rstrip().splitlines()[-1].startswith(f"tfmb.errors.PeerLostError: lost {workers.name(lost)}")


@pytest.mark.parametrize("seed", range(6))
def test_killed_while_they_start(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFMB_JOIN_SECONDS", "10")
    numbers = random.Random(seed)
    lost = numbers.randrange(2)
    with Workers(tmp_path) as workers:
        time.sleep(numbers.uniform(2.0, 10.0))
        workers.processes[lost].kill()
        code, stderr = workers.end_of(1 - lost)
        assert code == 69, stderr
        assert workers.name(lost) in error_line(stderr)


def test_run_that_lost_a_worker_goes_on(tmp_path: Path) -> None:
    with Workers(tmp_path) as workers:
        workers.lose(1, signal.SIGKILL)
        workers.end_of(0)
    before = (workers.run / "metrics.jsonl").read_bytes()
    this = [sys.executable, "-m", "tfmb"]
    command = [*this, "launch", "--workers", "2", "--", *this, "train", "--resume", str(workers.run)]
    launcher = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while len((workers.run / "metrics.jsonl").read_bytes()) < 2 * len(before):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        launcher.terminate()
        _, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 75, err
    assert status(workers.run) == "preempted"


def _gang(run: Path) -> list[str]:
    this = [sys.executable, "-m", "tfmb"]
    launch = [*this, "launch", "--workers", "2", "--restarts", "2", "--"]
    train = [*this, "train", "--strategy", "multi-worker", "--virtual-replicas", "2", "--dataset", "digits"]
    often = ["--model", "mlp", "--epochs", "20", "--checkpoint-every", "10", "--log-every", "10"]
    return [*launch, *train, *often, "--run-dir", str(run)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a gang that nobody kills."""
    run = tmp_path_factory.mktemp("whole") / "run"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(_gang(run), env=environment, check=True, capture_output=True, timeout=300)
    return run


@pytest.mark.parametrize("seed", range(20))
def test_restarted_gang_ends_like_one_that_was_never_killed(seed: int, whole: Path, tmp_path: Path) -> None:
    run, numbers = tmp_path / "run", random.Random(seed)
    with (tmp_path / "errors").open("w") as errors:
        launcher = subprocess.Popen(
            _gang(run), env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, stdout=subprocess.DEVNULL, stderr=errors
        )
    try:
        wait_for_updates(run, [launcher])
        workers = children(launcher.pid)
        time.sleep(numbers.uniform(0.0, 0.5))
        os.kill(numbers.choice(workers), signal.SIGKILL)
        code = launcher.wait(timeout=300)
    finally:
        launcher.terminate()
        launcher.wait()
    err = (tmp_path / "errors").read_text()
    assert code == 0, err[-3000:]
    assert "starting again" in err
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    records = [json.loads((folder / "run.json").read_text()) for folder in (run, whole)]
    assert records[0]["weights_sha256"] == records[1]["weights_sha256"]
