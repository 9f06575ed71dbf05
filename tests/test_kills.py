"""Runs that are killed at random instants end with the bits of those that were never stopped."""

import re
import subprocess
import sys

import pytest


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
