"""Runs that are killed at random instants end with the bits of those that were never stopped."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import Commands


@pytest.mark.process
@pytest.mark.sample
def test_run_that_is_killed_goes_on_to_the_bit(tmp_path: Path, commands: Commands) -> None:
    options = ["--dataset", "digits", "--model", "mlp", "--epochs", "60", "--checkpoint-every", "20", "--seed", "1"]
    whole = commands("train", *options, "--run-dir", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "tfmb", "train", *options, "--run-dir", "cut"]
    checkpoints = tmp_path / "cut" / "checkpoints"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (found := sorted(checkpoints.glob("step-*"))) or found[-1].name < "step-000000000100":
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    resumed = commands("train", "--resume", "cut", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert not list(checkpoints.glob("damaged-*"))
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "cut")]
    assert records[0]["weights_sha256"] == records[1]["weights_sha256"]
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut")]
    assert logs[0] == logs[1]


@pytest.mark.process
@pytest.mark.parametrize("kills", [12, pytest.param(40, marks=pytest.mark.slow)])
def test_kills(kills: int) -> None:
    # In a process of its own: a fork of one that has used TensorFlow hangs.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kill", "--kills", str(kills)],
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found = re.search(
        r"(\d+) kills .* (\d+) inside a save, (\d+) came late\): \d+ ended bit-identical, 0 did not", done.stdout
    )
    assert found, done.stdout
    done_kills, in_save, late = map(int, found.groups())
    assert done_kills == kills
    assert in_save >= 1
    # A kill that comes when the run is over shows nothing. Of a dozen, chance alone can make several late.
    assert kills / (kills + late) >= (0.9 if kills >= 40 else 0.7)
