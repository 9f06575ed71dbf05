"""Searches with two workers, of which a process is killed at a random instant: a worker, or the search's. Minutes."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from search_processes import assert_whole, begin, children_of, command, events, is_alive, wait_for, workers_of

from tfmb.tuning.states import kept
from tfmb.tuning.turns import WEIGHTS

TRIALS = 8
KILLS = 20


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Trial -> values of a search by one process."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(command(folder, "--no-prune", trials=TRIALS), check=True, capture_output=True)
    return {event["trial"]: event["values"] for event in events(folder) if event["event"] == "began"}


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_search_is_whole_whoever_is_killed(seed: int, values: dict[str, Any], tmp_path: Path) -> None:
    draw = random.Random(seed)
    folder = tmp_path / "s"
    whole = command(folder, "--workers", "2", "--no-prune" if seed % 2 else "--prune", trials=TRIALS)
    with begin(whole) as process:
        count = draw.randint(0, 3 * TRIALS)
        wait_for(lambda: process.poll() is not None or len(events(folder)) >= count)
        time.sleep(draw.uniform(0, 0.5))
        below, workers = children_of(process.pid), workers_of(process.pid)
        victim = process.pid if seed % 3 == 0 or not workers else draw.choice(workers)
        if process.poll() is None:
            os.kill(victim, signal.SIGKILL)
        print(f"killed {'the search' if victim == process.pid else 'a worker'} after {len(events(folder))} events, ")
        try:
            stdout, stderr = process.communicate(timeout=240)
        finally:
            process.kill()
        assert "Traceback" not in stderr
        if process.returncode == -signal.SIGKILL:
            wait_for(lambda: not any(map(is_alive, below)))
    if process.returncode == -signal.SIGKILL:
        done = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr
        stdout = done.stdout
    else:
        assert process.returncode == 0, stderr
    found = json.loads(stdout)
    assert found["trials"] == TRIALS
    assert_whole(folder, TRIALS, once="--no-prune" in whole)
    new = [event for event in events(folder) if event["event"] == "began" and event["new"]]
    assert {event["trial"]: event["values"] for event in new} == values
    assert kept(folder / "trials" / f"trial_{found['trial']}" / WEIGHTS)


def test_a_search_whose_process_slept_goes_on_with_its_workers(tmp_path: Path) -> None:
    with begin(command(tmp_path / "s", "--workers", "2", trials=TRIALS)) as process:
        wait_for(lambda: process.poll() is not None or len(events(tmp_path / "s")) >= 6)
        workers = workers_of(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(10)
        assert all(map(is_alive, workers))
        os.kill(process.pid, signal.SIGCONT)
        try:
            stdout, stderr = process.communicate(timeout=180)
        finally:
            process.kill()
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["trials"] == TRIALS
    assert_whole(tmp_path / "s", TRIALS, once=False)
