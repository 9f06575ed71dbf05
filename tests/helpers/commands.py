"""Runs the command line in a process of its own, forked from one that has imported TensorFlow already."""

import os
import subprocess
import sys
from pathlib import Path

from fork_server import ForkServer

from tfmb.cli import main

__all__ = ["Commands"]


class Commands:
    """Runs commands one after another through a fork server.

    What a command does while it is imported is not seen here: tests of that start an interpreter.
    """

    def __init__(self, server: ForkServer) -> None:
        self._server = server

    def __call__(self, *arguments: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Runs `tfmb ARGUMENTS` in a folder, with more environment variables."""
        done = self._server.call("commands:run", list(arguments), str(cwd), environment, seconds=300)
        assert not done.hung, arguments
        return subprocess.CompletedProcess(list(arguments), done.code, done.text, done.error)


def run(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """In the forked process: runs the command and ends it."""
    os.chdir(folder)
    os.environ.update(environment)
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)
