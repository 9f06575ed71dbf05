"""The processes of a search, as the system sees them."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = [
    "assert_whole",
    "begin",
    "children_of",
    "command",
    "events",
    "is_alive",
    "listens",
    "wait_for",
    "workers_of",
]


def children_of(process: int) -> dict[int, str]:
    """The child processes of one, with their command lines."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(process)], capture_output=True, text=True, check=False
    )
    lines = [line.strip().partition(" ") for line in found.stdout.splitlines() if "ps -o pid=" not in line]
    return {int(pid): words for pid, _, words in lines}


def workers_of(search: int) -> list[int]:
    """The worker processes of a search, without those that only look after semaphores."""
    return [pid for pid, words in children_of(search).items() if "popen_loky_posix" in words]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listens(process: int) -> bool:
    """Whether a process has a socket that waits for connections over a network."""
    own = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        try:
            own.add(os.readlink(file))
        except OSError:  # it was closed meanwhile
            continue
    for table in ("tcp", "tcp6"):
        place = Path(f"/proc/{process}/net/{table}")
        for line in place.read_text().splitlines()[1:] if place.exists() else []:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in own:
                return True
    return False


def command(folder: Path, *options: str, trials: int = 6, epochs: int = 3) -> list[str]:
    fixed = ["--dataset", "digits", "--model", "mlp", "--oracle", "random", "--max-trials", str(trials)]
    fixed += ["--epochs", str(epochs), "--json", "--run-dir", str(folder)]
    return [sys.executable, "-m", "tfmb", "tune", *fixed, *options]


def begin(words: list[str], **given: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **given)


def events(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a search's journal."""
    journal = folder / "journal.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def assert_whole(folder: Path, trials: int, once: bool = True) -> None:
    """No trial of a search was lost, and none repeated; without `once` a trial may have ended, and gone on later."""
    happened = events(folder)
    new = [event["trial"] for event in happened if event["event"] == "began" and event["new"]]
    assert len(new) == len(set(new)) == trials
    ended = Counter(event["trial"] for event in happened if event["event"] == "ended")
    assert set(ended) == set(new)
    assert not once or set(ended.values()) == {1}
    reports = [(event["trial"], event["slice"]) for event in happened if event["event"] == "report"]
    assert len(set(reports)) == len(reports)


def wait_for(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
