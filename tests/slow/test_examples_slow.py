"""The examples that take more than some seconds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from example_runs import EXAMPLES, number_after, printed

ROOT = Path(__file__).parents[2]


def weights(*command: str) -> set[str]:
    """The SHA-256 of the weights that each process printed, once each; and that all ended well."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"weights ([0-9a-f]{12})$", done.stdout, re.MULTILINE))


def test_two_workers_end_with_the_bits_of_one_process() -> None:
    script = str(EXAMPLES / "workers.py")
    alone = weights(script)
    assert len(alone) == 1
    assert weights("-m", "tfmb", "launch", "--workers", "2", "--", sys.executable, script) == alone


def test_any_number_of_devices_ends_with_the_same_bits() -> None:
    script = str(EXAMPLES / "same_bits.py")
    one, two, four = (weights(script, devices) for devices in ("1", "2", "4"))
    assert len(one) == 1
    assert one == two == four


def test_the_search_finds_a_model_that_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = printed("search.py")
    assert out.count("completed") == 6
    assert number_after("test accuracy", out) >= 0.8
    assert (tmp_path / "runs" / "search" / "best.json").is_file()
    assert printed("search.py") == out  # it goes on where it was, which is at the end
