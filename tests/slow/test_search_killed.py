"""Searches with two workers, of which a process is killed at a random instant: a worker, or the chief. Minutes long."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from search_processes import is_alive, workers_of

from tfmb.tuning.scheduler import WEIGHTS
from tfmb.tuning.states import load_weights

TRIALS = 8
KILLS = 20


def command(folder: Path, *options: str) -> list[str]:
    fixed = ["--dataset", "digits", "--model", "mlp", "--oracle", "random", "--max-trials", str(TRIALS)]
    return [sys.executable, "-m", "tfmb", "tune", *fixed, "--epochs", "3", "--json", "--run-dir", str(folder), *options]


def start(folder: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(command(folder, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines() if line.endswith("}")]


def wait_for_events(folder: Path, count: int, process: "subprocess.Popen[str]") -> None:
    journal = folder / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= count):
        time.sleep(0.02)


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Trial -> values of a search by one process."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(command(folder, "--no-prune"), check=True, capture_output=True)
    return {event["trial"]: event["values"] for event in events(folder) if event["event"] == "began"}


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_search_is_whole_whoever_is_killed(seed: int, values: dict[str, Any], tmp_path: Path) -> None:
    draw = random.Random(seed)
    folder = tmp_path / "s"
    options = ("--workers", "2", "--no-prune" if seed % 2 else "--prune")
    with start(folder, *options) as process:
        wait_for_events(folder, draw.randint(0, 3 * TRIALS), process)
        time.sleep(draw.uniform(0, 0.5))
        workers = workers_of(process.pid)
        victim = process.pid if seed % 3 == 0 or not workers else draw.choice(workers)
        if process.poll() is None:
            os.kill(victim, signal.SIGKILL)
        known = len(events(folder)) if (folder / "journal.jsonl").exists() else 0
        print(f"killed {'the chief' if victim == process.pid else 'a worker'} after {known} events, ", end="")
        try:
            stdout, stderr = process.communicate(timeout=240)
        finally:
            process.kill()
        assert "Traceback" not in stderr
        if process.returncode == -signal.SIGKILL:
            begin = time.monotonic()
            while any(map(is_alive, workers)):
                assert time.monotonic() - begin < 30
                time.sleep(0.05)
            print(f"workers ended after {time.monotonic() - begin:.1f} s, ", end="")
    if process.returncode == -signal.SIGKILL:
        done = subprocess.run(command(folder, *options), capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr
        stdout = done.stdout
    else:
        assert process.returncode == 0, stderr
    found = json.loads(stdout)
    assert found["trials"] == TRIALS
    happened = events(folder)
    print(f"{sum(event['event'] == 'began' for event in happened)} turns of {TRIALS} trials")
    new = [event for event in happened if event["event"] == "began" and event["new"]]
    assert {event["trial"]: event["values"] for event in new} == values
    assert len(new) == TRIALS
    ended = [event["trial"] for event in happened if event["event"] == "ended"]
    assert set(ended) == set(values)
    if "--no-prune" in options:
        assert len(ended) == TRIALS
    reports = [(event["trial"], event["slice"]) for event in happened if event["event"] == "report"]
    assert len(set(reports)) == len(reports)
    assert load_weights(folder / "trials" / f"trial_{found['trial']}" / WEIGHTS)
    assert not (folder / "handover").exists()


def ended_within(process: "subprocess.Popen[str]", seconds: float) -> dict[str, Any]:
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, stderr
    found: dict[str, Any] = json.loads(stdout)
    return found


@pytest.mark.parametrize("when", ["while it starts", "in the search"])
def test_a_search_ends_without_a_worker_that_hangs(when: str, tmp_path: Path) -> None:
    with start(tmp_path / "s", "--workers", "2") as process:
        if when == "in the search":
            wait_for_events(tmp_path / "s", 6, process)
        while process.poll() is None and len(workers_of(process.pid)) < 2:
            time.sleep(0.02)
        hung = random.Random(0).choice(workers_of(process.pid))
        os.kill(hung, signal.SIGSTOP)
        begin = time.monotonic()
        assert ended_within(process, 180)["trials"] == TRIALS
        print(f"ended {time.monotonic() - begin:.1f} s after a worker hung {when}")
        assert not is_alive(hung)
    began = [event["trial"] for event in events(tmp_path / "s") if event["event"] == "began" and event["new"]]
    assert len(began) == TRIALS


def test_a_chief_that_slept_goes_on(tmp_path: Path) -> None:
    with start(tmp_path / "s", "--workers", "2") as process:
        wait_for_events(tmp_path / "s", 6, process)
        workers = workers_of(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        begin = time.monotonic()
        while any(map(is_alive, workers)):
            assert time.monotonic() - begin < 40
            time.sleep(0.1)
        print(f"workers of a chief that hangs ended after {time.monotonic() - begin:.1f} s")
        os.kill(process.pid, signal.SIGCONT)
        assert ended_within(process, 180)["trials"] == TRIALS
