"""Searches on each engine, of which a process is killed at a random instant: a worker, or the search's. Minutes."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from search_processes import assert_whole, begin, children_of, command, events, is_alive, wait_for, workers_of

from tfmb.tuning.trials.states import kept
from tfmb.tuning.turns import WEIGHTS

TRIALS = 8
# Over all engines: two of seven kill the search's own process, the others a worker.
KILLS = 70
CHIEFS = (0, 3)  # by seed % 7
ENGINES = ("processes", "dask", "ray")  # by seed % 3


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Trial -> values of a search by one process."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(command(folder, "--oracle", "random,no_pruning", trials=TRIALS), check=True, capture_output=True)
    return {event["trial"]: event["values"] for event in events(folder) if event["event"] == "began"}


class Processes:
    """Two processes of the search's own."""

    options = ("--workers", "2")

    def workers(self, search: int) -> list[int]:
        """Their numbers."""
        return workers_of(search)


class Dask:
    """A cluster that outlives the search: its nannies begin a worker anew."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        distributed = pytest.importorskip("distributed")
        given = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        self._cluster = stack.enter_context(distributed.LocalCluster(**given))
        self.options = ("--executor", f"dask:{self._cluster.scheduler_address}")

    def workers(self, search: int) -> list[int]:
        """The numbers of the cluster's worker processes, whoever's search they serve."""
        return [nanny.pid for nanny in self._cluster.workers.values() if nanny.pid is not None]


class Ray:
    """A cluster that outlives the search, whose actors end with it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        pytest.importorskip("ray")
        ray = str(Path(sys.executable).with_name("ray"))
        head = [
            ray,
            "start",
            "--head",
            "--port=0",
            "--num-cpus=2",
            "--include-dashboard=false",
            "--disable-usage-stats",
        ]
        said = subprocess.run(head, check=True, capture_output=True, text=True).stdout
        stack.callback(subprocess.run, [ray, "stop", "--force"], capture_output=True, check=False)
        found = re.search(r"address='?\"?([\d.]+:\d+)", said)
        assert found, said
        self.options = ("--executor", f"ray:{found[1]}")

    def workers(self, search: int) -> list[int]:
        """The numbers of the processes in which actors are."""
        found = subprocess.run(["pgrep", "-f", "^ray::_Actor"], capture_output=True, text=True, check=False)
        return [int(word) for word in found.stdout.split()]


@pytest.fixture(scope="module")
def engines() -> Iterator[Callable[[str], Any]]:
    """Gives an engine by its name, begun when it is first asked for."""
    with contextlib.ExitStack() as stack:
        begun: dict[str, Any] = {}

        def engine(name: str) -> Any:
            if name not in begun:
                begun[name] = {"dask": Dask, "ray": Ray}[name](stack) if name != "processes" else Processes()
            return begun[name]

        yield engine


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_search_is_whole_whoever_is_killed(
    seed: int, values: dict[str, Any], engines: Callable[[str], Any], tmp_path: Path
) -> None:
    draw, engine = random.Random(seed), engines(ENGINES[seed % 3])
    folder = tmp_path / "s"
    whole = command(folder, *engine.options, "--oracle", "random,no_pruning" if seed % 2 else "random", trials=TRIALS)
    with begin(whole) as process:
        count = draw.randint(0, 3 * TRIALS)
        wait_for(lambda: process.poll() is not None or len(events(folder)) >= count)
        time.sleep(draw.uniform(0, 0.5))
        below, workers = children_of(process.pid), engine.workers(process.pid)
        victim = process.pid if seed % 7 in CHIEFS or not workers else draw.choice(workers)
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
    assert_whole(folder, TRIALS, once="random,no_pruning" in whole)
    new = [event for event in events(folder) if event["event"] == "began" and event["new"]]
    assert {event["trial"]: event["values"] for event in new} == values
    assert kept(folder / "trials" / f"trial_{found['trial']}" / WEIGHTS)
    if isinstance(engine, Ray):
        wait_for(lambda: not engine.workers(process.pid))


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
