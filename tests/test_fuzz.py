"""A sample of `slow/test_fuzz.py`: damaged files and bad options are refused in one line, or do what they say."""

from pathlib import Path

import fuzzing
import pytest
from fork_server import ForkServer


@pytest.mark.process
def test_damaged_files(tmp_path: Path) -> None:
    with ForkServer(tmp_path) as server:
        counts = {"checkpoint": 60, "idx": 100, "weights": 50, "cache": 50, "record": 100, "export": 100}
        counts |= {"journal": 60, "log": 60, "answer": 100, "state": 50, "image": 60}
        for kind, count in counts.items():
            outcomes = fuzzing.files(server, tmp_path, kind, range(count))
            assert outcomes["refused"] >= count / 5, kind
            assert outcomes["equal"] >= 1, kind


@pytest.mark.process
@pytest.mark.parametrize("kind", ["config", "command"])
def test_bad_words(tmp_path: Path, kind: str) -> None:
    assert fuzzing.words(tmp_path, kind, range(200))["refused"] >= 150
