"""A process that forks a child for each job, and its side of those who give it jobs: a line with the child's number,
then one with its exit code.

Importing TensorFlow takes seconds and forking does not; but a child of a process in which an operation ran hangs. So
the process that forks runs none, and is none of pytest's.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Forks", "serve"]


class Forks:
    """Starts a process that calls `serve`, and gives it jobs.

    Args:
        command: Python's arguments for it.
        log: the file for what it says on standard error.
        **options: those of `subprocess.Popen`.
    """

    def __init__(self, command: list[str], log: Path, **options: Any) -> None:
        self._log, self._read = log, b""
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, **options
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs, self._answers = self._process.stdin, self._process.stdout

    def start(self, job: Any) -> int:
        """Gives it a job, JSON; returns the number of the child that does it."""
        self._jobs.write(json.dumps(job).encode() + b"\n")
        self._jobs.flush()
        return int(self._answer(120))

    def end(self, pid: int, seconds: float) -> tuple[int, bool]:
        """Waits for the child: its exit code, or minus the signal, and whether it took longer and was killed."""
        try:
            return int(self._answer(seconds)), False
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            return int(self._answer(60)), True

    def close(self, kill: bool = False) -> None:
        """Ends it, once its job is done or at once."""
        self._jobs.close()
        if kill:
            self._process.kill()
        self._process.wait(timeout=60)
        self._answers.close()

    def _answer(self, seconds: float) -> bytes:
        until = time.monotonic() + seconds
        while b"\n" not in self._read:  # not readline, which may take more lines than one, unseen by select
            if not select.select([self._answers], [], [], max(until - time.monotonic(), 0))[0]:
                raise TimeoutError
            piece = os.read(self._answers.fileno(), 1000)
            if not piece:
                raise RuntimeError(f"the server ended: {self._log.read_text()[-2000:]}")
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return line


def serve(run: Callable[[Any], int]) -> None:
    """Does each job on standard input in a child of its own, whose exit code is what `run` returns."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = run(json.loads(line))
            finally:
                os._exit(code)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
