"""Every recipe that is killed goes on to the bits of one that was not: each pair of settings is in one."""

import random
import signal
from pathlib import Path
from typing import Any

import pytest
import recipes_that_resume as recipes
from cases import here
from fork_server import ForkServer

ROWS = recipes.covering()
# Together they have every level at least once. Two workers take three times as long as one.
DAILY, BY_TWO = 12, 1


def first_with_new_levels(count: int) -> list[int]:
    """The numbers of the rows that together show the most levels, each adding the most."""
    chosen: list[int] = []
    seen: set[tuple[str, str]] = set()
    for _ in range(count):
        full = sum(ROWS[n]["workers"] == "2" for n in chosen) == BY_TWO
        left = [n for n in range(len(ROWS)) if n not in chosen and not (full and ROWS[n]["workers"] == "2")]
        number = max(left, key=lambda n: len(set(ROWS[n].items()) - seen))
        chosen.append(number)
        seen |= set(ROWS[number].items())
    return sorted(chosen)


def test_every_pair_of_settings_occurs() -> None:
    found = set().union(*map(recipes.pairs_of, ROWS))
    missing = recipes.all_pairs() - found
    assert not missing, "three settings together forbid these: say so in `valid`"
    assert all(recipes.valid(row) for row in ROWS)


def test_the_daily_rows_show_every_level() -> None:
    seen = set().union(*(set(ROWS[number].items()) for number in first_with_new_levels(DAILY)))
    assert seen == {(factor, level) for factor, levels in recipes.FACTORS.items() for level in levels}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with ForkServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.mark.process
@pytest.mark.parametrize("number", here(range(len(ROWS)), first_with_new_levels(DAILY)))
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(number: int, server: ForkServer, tmp_path: Path) -> None:
    row, draw = ROWS[number], random.Random(number)
    call = "recipes_that_resume:train"
    whole = server.call(call, row, str(tmp_path / "whole"), seconds=120)
    assert whole.code == 0, (row, whole.error[-2000:])
    for attempt in range(6):  # a kill that comes when all is over shows nothing: then it comes earlier
        folder = tmp_path / f"cut-{attempt}"
        killed = server.call(call, row, str(folder), draw.random() * 0.1 / 2**attempt, seconds=120)
        if killed.code == -signal.SIGKILL:
            break
    assert killed.code == -signal.SIGKILL, (row, killed.error[-2000:])
    assert list((folder / "checkpoints").glob("step-*"))
    resumed = server.call(call, row, str(folder), seconds=120)
    assert resumed.code == 0, (row, resumed.error[-2000:])
    assert not list((folder / "checkpoints").glob("damaged-*"))
    digests = [sorted(line for line in ended.output if line.startswith("digest")) for ended in (resumed, whole)]
    assert digests[0] == digests[1], row
    assert len(digests[0]) == int(row["workers"])
