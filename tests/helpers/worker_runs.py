"""Worker processes on the loopback interface, for tests that lose some of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from tfmb.distribution.launcher import Gang, free_ports

SOON = 30.0  # in which a survivor must have ended
TRAIN = [
    *(sys.executable, "-m", "tfmb", "train", "--dataset", "digits", "--model", "mlp", "--epochs", "10000"),
    *("--strategy", "multi-worker", "--virtual-replicas", "4"),
]


class Workers:
    """Workers started by hand, each with its `TF_CONFIG`; none outlives the `with` block.

    Their run directory is `run`, and each one's standard error goes to a file.
    """

    def __init__(
        self, folder: Path, count: int = 2, ranks: Sequence[int] | None = None, command: Sequence[str] = TRAIN
    ) -> None:
        self.hosts = [f"127.0.0.1:{port}" for port in free_ports(count)]
        self.run = folder / "run"
        self._folder = folder
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        gang = Gang(command=[*command, "--run-dir", str(self.run)], hosts=self.hosts, ranks=ranks or range(count))
        for rank in gang.ranks:
            with self._errors(rank).open("wb") as errors:
                self.processes[rank] = subprocess.Popen(
                    list(gang.command),
                    env={**gang.environment(rank), "CUDA_VISIBLE_DEVICES": ""},
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def lose(self, rank: int, number: int) -> None:
        """Sends a worker a signal in the middle of the training."""
        wait_for_updates(self.run, self.processes.values())
        self.processes[rank].send_signal(number)

    def end_of(self, rank: int) -> tuple[int, str]:
        """A worker's exit code and standard error; it must end soon, with no process left of its group."""
        begin = time.monotonic()
        code = self.processes[rank].wait(timeout=2 * SOON)
        assert time.monotonic() - begin < SOON
        assert not is_alive(-self.processes[rank].pid)
        return code, self.stderr(rank)

    def stderr(self, rank: int) -> str:
        return self._errors(rank).read_text()

    def name(self, rank: int) -> str:
        return f"worker {rank} ({self.hosts[rank]})"

    def _errors(self, rank: int) -> Path:
        return self._folder / f"errors-{rank}"


def wait_for_updates(run: Path, processes: Iterable[subprocess.Popen[bytes]] = ()) -> None:
    """Returns when the chief has reported some updates, which all workers have made then."""
    deadline = time.monotonic() + 90
    while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_bytes().count(b"\n") > 1):
        assert time.monotonic() < deadline, "no update was made"
        assert all(process.poll() is None for process in processes), "a worker ended early"
        time.sleep(0.05)


def error_line(stderr: str) -> str:
    """The one line a survivor ends with."""
    assert "Traceback" not in stderr, stderr
    lines = [line for line in stderr.splitlines() if "tfmb: error" in line]
    assert len(lines) == 1, stderr
    return lines[0]


def status(run: Path) -> str:
    return json.loads((run / "run.json").read_text())["status"]


def is_alive(pid: int) -> bool:
    """Whether a process lives, or for a negative number any of the group."""
    try:
        os.kill(pid, 0) if pid > 0 else os.killpg(-pid, 0)
    except ProcessLookupError:
        return False
    return True


def children(pid: int) -> list[int]:
    """The child processes of one, in the order they were started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


KILLS = [signal.SIGKILL, signal.SIGSTOP]
