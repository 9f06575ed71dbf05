"""A process with TensorFlow, in which no operation ever runs: it forks one child for each batch of runs.

Importing TensorFlow takes seconds and forking does not; a child of a process in which TensorFlow has started hangs.
"""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from forks import Forks, serve

__all__ = ["Server"]

_ROOT = Path(__file__).parents[2]


class Server:
    """Runs batches of programs in forked processes.

    Args:
        folder: for what the runs leave.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
        self._forks = Forks(
            ["-m", "tests.differential.server", str(folder)],
            folder / "log",
            env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=_ROOT,
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forks.close(kill=error is not None)

    def run(self, runs: list[tuple[dict[str, Any], str, str]], seconds: float, eagerly: bool) -> int | None:
        """Runs `(program, side, name of the file for the outcome)` one after another in one child.

        Args:
            runs: what to run.
            seconds: after which the child is killed.
            eagerly: see `running.run_and_keep`.

        Returns:
            The child's exit code, or minus the signal; None where it took too long and was killed.
        """
        code, hung = self._forks.end(self._forks.start({"runs": runs, "eagerly": eagerly}), seconds)
        return None if hung else code


def _serve(folder: Path) -> None:
    import gc

    import tfmb.training.fit  # noqa: F401  # so that no child has to

    gc.freeze()  # what is imported is no garbage: a child that looks through it takes 0.2 s a run (2026-11-30)

    from .running import run_and_keep

    def run(job: dict[str, Any]) -> int:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        for program, side, name in job["runs"]:
            run_and_keep(program, side, str(folder / name), job["eagerly"])
        return 0

    serve(run)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
