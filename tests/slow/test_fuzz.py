"""Thousands of damaged files and bad options: no traceback, signal or hang; nothing wrong is taken for right."""

from pathlib import Path

import fuzzing
import option_values
import pytest
from fork_server import ForkServer

FILES = {"checkpoint": 2000, "idx": 3000, "weights": 1000, "cache": 1000, "record": 2000, "export": 2000}
FILES |= {"journal": 1000, "log": 1000, "answer": 1000, "state": 1000, "image": 1000}
WORDS = {"config": 5000, "command": 3000}
OPTIONS = 2000
FIRST = 10_000  # other seeds than the sample's


@pytest.mark.parametrize("kind", FILES)
def test_damaged_files(tmp_path: Path, kind: str) -> None:
    seeds = range(FIRST, FIRST + FILES[kind])
    with ForkServer(tmp_path) as server:
        outcomes = fuzzing.files(server, tmp_path, kind, seeds)
    print(f"\n{kind}: seeds {seeds}: {dict(outcomes)}")
    assert outcomes["refused"] >= len(seeds) / 5
    assert outcomes["equal"] >= 1


@pytest.mark.parametrize("kind", WORDS)
def test_bad_words(tmp_path: Path, kind: str) -> None:
    seeds = range(FIRST, FIRST + WORDS[kind])
    outcomes = fuzzing.words(tmp_path, kind, seeds)
    print(f"\n{kind}: seeds {seeds}: {dict(outcomes)}")
    assert outcomes["refused"] >= len(seeds) * 3 / 4


def test_random_options(tmp_path: Path) -> None:
    seeds = range(FIRST, FIRST + OPTIONS)
    with ForkServer(tmp_path) as server:
        outcomes = fuzzing.options(server, tmp_path, seeds)
    print(
        f"\noptions: seeds {seeds}:", *(f"{outcome}: {count}" for outcome, count in sorted(outcomes.items())), sep="\n"
    )
    assert outcomes.total() == OPTIONS


@pytest.mark.parametrize("command", option_values.COMMANDS)
def test_each_option_alone(tmp_path: Path, command: str) -> None:
    with ForkServer(tmp_path) as server:
        outcomes = fuzzing.each_option(server, tmp_path, command)
    print(f"\n{command}: {dict(outcomes)}")
    assert outcomes["seen"] >= 1
