"""`tfmb train --deterministic`: pinned, on record, and the same bits twice."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tfmb.errors import ConfigError
from tfmb.jobs.config import TrainConfig


def train(folder: Path, name: str, *options: str) -> dict[str, Any]:
    # In a process of its own: threads are fixed when TensorFlow starts.
    command = [sys.executable, "-m", "tfmb", "train", *options, "--dataset", "digits", "--epochs", "1"]
    done = subprocess.run(
        [*command, "--run-dir", str(folder / name)], env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads((folder / name / "run.json").read_text())
    return record


@pytest.mark.process
def test_same_bits_twice_with_pinned_settings_on_record(tmp_path: Path) -> None:
    first, second = train(tmp_path, "a", "--deterministic"), train(tmp_path, "b", "--deterministic")
    assert first["weights_sha256"] == second["weights_sha256"]
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()
    assert first["config"]["deterministic"] is True
    numerics = first["numerics"]
    assert (numerics["intra_op_threads"], numerics["inter_op_threads"], numerics["onednn"]) == (2, 2, "1")
    assert numerics["op_determinism"] is True


def test_xla_is_not_pinned() -> None:
    with pytest.raises(ConfigError, match="--deterministic and --jit-compile cannot both be given"):
        TrainConfig(deterministic=True, jit_compile="step")


@pytest.mark.slow
def test_threads_are_as_many_as_asked_for(tmp_path: Path) -> None:
    record = train(tmp_path, "a", "--threads", "1")
    assert record["numerics"]["intra_op_threads"] == record["config"]["threads"] == 1
    with pytest.raises(ConfigError, match="--deterministic pins the threads: leave --threads out"):
        TrainConfig(deterministic=True, threads=1)
