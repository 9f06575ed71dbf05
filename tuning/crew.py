"""The worker processes of a search on this machine: started, watched, ended, and what they write."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfmb.distribution.launcher import visible_gpus
from tfmb.environment import children
from tfmb.errors import PeerLostError

__all__ = ["Crew", "Ended"]

_GRACE_SECONDS = 5.0
_MOST_REPORT = 32 * 2**10  # bytes that a pipe holds, so that nobody need read before the end


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A worker process that ended.

    Attributes:
        worker: its name.
        code: its exit code; negative for a signal.
        error: what its own last words were: `kind`, `message` and `exit_code`; None where it had none.
    """

    worker: str
    code: int
    error: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class _Member:
    process: "subprocess.Popen[bytes]"
    report: int
    reader: threading.Thread


class Crew:
    """Worker processes; inside its `with` block they live, and after it they do not.

    Args:
        names: of the workers.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._members: dict[str, _Member] = {}
        self._shares = _shares(len(names))
        gpus = visible_gpus()
        self._gpus = {name: gpus[number % len(gpus)] for number, name in enumerate(names)} if gpus else {}
        self._are_shared = len(names) > len(gpus)
        self._numbers = {name: number for number, name in enumerate(names)}

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def running(self) -> list[str]:
        """The names of those that were started and whose end nobody heard of."""
        return list(self._members)

    def start(self, worker: str, told: dict[str, Any]) -> None:
        """Starts a worker.

        Args:
            worker: its name.
            told: what it reads on its standard input, besides its cores and how to say why it ends.

        Raises:
            PeerLostError: it cannot be started.
        """
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if worker in self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[worker]
            if self._are_shared:  # or the first one would take all of its memory
                environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        cores, threads = self._shares[self._numbers[worker]]
        reading, writing = os.pipe()
        told = {**told, "report": writing, "cores": cores, "threads": threads, "path": sys.path}
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "tfmb.tuning.worker"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
                start_new_session=True,  # Ctrl-C comes through us alone, and its own children end with it
            )
        except OSError as error:
            os.close(reading)
            raise PeerLostError(f"{worker} cannot be started ({error.strerror})") from error
        finally:
            os.close(writing)
        assert process.stdout is not None
        output = io.TextIOWrapper(process.stdout, "utf-8", "replace", newline="\n")
        reader = children.copy_lines(output, sys.stderr, f"[{worker}] ")
        self._members[worker] = _Member(process=process, report=reading, reader=reader)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended already, and will be missed
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()  # it stays open: by its end a worker knows that we are gone

    def ended(self) -> list[Ended]:
        """Those that ended since the last time."""
        gone = [worker for worker, member in self._members.items() if member.process.poll() is not None]
        return [self._farewell(worker) for worker in gone]

    def kill(self, worker: str) -> None:
        """Ends a worker that hangs; `ended` tells when it has."""
        children.send(self._members[worker].process, signal.SIGKILL)

    def close(self) -> None:
        """Ends all."""
        children.end([member.process for member in self._members.values()], _GRACE_SECONDS)
        for worker in list(self._members):
            self._farewell(worker)

    def _farewell(self, worker: str) -> Ended:
        member = self._members.pop(worker)
        assert member.process.stdin is not None
        with contextlib.suppress(OSError):
            member.process.stdin.close()
        member.reader.join(_GRACE_SECONDS)
        os.set_blocking(member.report, False)
        words = b""
        with contextlib.suppress(BlockingIOError):
            words = os.read(member.report, _MOST_REPORT)
        os.close(member.report)
        try:
            error = json.loads(words) if words else None
        except ValueError:  # it was killed while it spoke
            error = None
        return Ended(worker=worker, code=member.process.returncode, error=error)


def _shares(count: int) -> list[tuple[list[int], int]]:
    """For each worker its cores (none where there are too few to part) and number of threads, the same for all."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    whole = len(cores) or os.cpu_count() or 1
    threads = max(whole // count, 1)
    if len(cores) < count:
        return [([], threads)] * count
    return [(cores[number * threads : (number + 1) * threads], threads) for number in range(count)]
