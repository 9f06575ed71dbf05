"""The worker processes of a search, as the system sees them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfmb.distribution.launcher import free_ports

TRIALS = 12


def workers_of(chief: int) -> list[int]:
    """The process ids of a chief's workers."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(chief)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "tfmb.tuning.worker" in line]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command(folder: Path, *options: str) -> list[str]:
    fixed = [
        "--dataset",
        "digits",
        "--model",
        "mlp",
        "--oracle",
        "random",
        "--max-trials",
        str(TRIALS),
        "--epochs",
        "20",
    ]
    return [sys.executable, "-m", "tfmb", "tune", *fixed, "--json", "--run-dir", str(folder), *options]


def begin(folder: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(command(folder, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def two_hosts(tmp_path: Path, dies: bool) -> None:
    """A search of two hosts, the second of which may be lost: all trials are done once, by both."""
    folder, address = tmp_path / "s", f"127.0.0.1:{free_ports(1)[0]}"
    with begin(folder, "--listen", address) as chief:
        wait_for(lambda: workers_of(chief.pid))
        os.kill(workers_of(chief.pid)[0], signal.SIGSTOP)  # or it may have done all before the guest has started
        with begin(folder, "--join", address) as other:
            wait_for(lambda: any(by_guest(event) for event in read(folder)))
            os.kill(workers_of(chief.pid)[0], signal.SIGCONT)
            if dies:  # both its process and the worker below it: nobody says that they are gone
                os.killpg(workers_of(other.pid)[0], signal.SIGKILL)
                other.kill()
            found, words = chief.communicate(timeout=200)
            joined, said = other.communicate(timeout=60)
    assert chief.returncode == 0, words
    assert dies or (other.returncode, json.loads(joined)["workers"]) == (0, 1), said
    assert json.loads(found)["trials"] == TRIALS
    assert "only in a network you trust" in words
    happened = read(folder)
    new = [event["trial"] for event in happened if event["event"] == "began" and event["new"]]
    assert sorted(new) == [f"{trial:02}" for trial in range(TRIALS)]
    reports = [(event["trial"], event["slice"]) for event in happened if event["event"] == "report"]
    assert len(set(reports)) == len(reports)
    assert {by_guest(event) for event in happened if event["event"] == "began"} == {True, False}
    assert not (folder / "token").exists()


def read(folder: Path) -> list[dict[str, Any]]:
    journal = folder / "journal.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def by_guest(event: dict[str, Any]) -> bool:
    return event["event"] == "began" and not event["worker"].startswith("worker-")


def wait_for(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
