"""A process with TensorFlow, in which no operation ever runs: it forks one child for each batch of runs.

Importing TensorFlow takes seconds and forking does not; a child of a process in which TensorFlow has started hangs.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Server"]

_ROOT = Path(__file__).parents[2]


class Server:
    """Runs batches of programs in forked processes.

    Args:
        folder: for what the runs leave.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read = b""
        self._log = (folder / "log").open("w")
        path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.differential.server", str(folder)],
            env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        if error is not None:
            self._server.kill()
        self._server.wait(timeout=60)
        self._server.stdout.close()
        self._log.close()

    def run(self, runs: list[tuple[dict[str, Any], str, str]], seconds: float, eagerly: bool) -> int | None:
        """Runs `(program, side, name of the file for the outcome)` one after another in one child.

        Args:
            runs: what to run.
            seconds: after which the child is killed.
            eagerly: see `running.run_and_keep`.

        Returns:
            The child's exit code, or minus the signal; None where it took too long and was killed.
        """
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps({"runs": runs, "eagerly": eagerly}).encode() + b"\n")
        self._server.stdin.flush()
        pid = int(self._answer(120))
        try:
            return int(self._answer(seconds))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            self._answer(60)
            return None

    def _answer(self, seconds: float) -> bytes:
        assert self._server.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self._read:
            if not select.select([self._server.stdout], [], [], max(until - time.monotonic(), 0))[0]:
                raise TimeoutError
            piece = os.read(self._server.stdout.fileno(), 1000)
            if not piece:
                raise RuntimeError(f"the server ended: {(self.folder / 'log').read_text()[-2000:]}")
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return line


def _serve(folder: Path) -> None:
    import tfmb.training.fit  # noqa: F401  # so that no child has to

    from .running import run_and_keep

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            code = 1
            try:
                job = json.loads(line)
                for program, side, name in job["runs"]:
                    run_and_keep(program, side, str(folder / name), job["eagerly"])
                code = 0
            finally:
                os._exit(code)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
