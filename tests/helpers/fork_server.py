"""Many short processes with TensorFlow for the price of one: a server imports it, and forks for each call.

The server itself must never run a TensorFlow operation: its children would hang. So it is a process apart from the
tests, which do.
"""

import ctypes
import importlib
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from forks import Forks, serve

_TESTS = Path(__file__).parents[1]
_PR_SET_PTRACER = 0x59616D61


@dataclass(frozen=True)
class Ended:
    """How a call ended.

    Attributes:
        code: the exit code, or minus the signal.
        text: what was on standard output.
        error: what was on standard error.
        hung: whether it had to be killed after its time.
        trace: strace's lines, where it was asked for.
    """

    code: int
    text: str
    error: str
    hung: bool
    trace: list[str]

    @property
    def output(self) -> list[str]:
        """The lines on standard output."""
        return self.text.splitlines()


class ForkServer:
    """Calls functions of test modules in processes of their own.

    Args:
        folder: for the outputs.
        package: the folder that `tfmb` is imported from.
    """

    def __init__(self, folder: Path, package: Path = _TESTS.parent) -> None:
        self._folder = folder
        path = os.pathsep.join([str(package), str(_TESTS / "helpers")])
        self._forks = Forks(
            [str(_TESTS / "helpers" / "fork_server.py"), str(folder)],
            folder / "server",
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=folder,
        )

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forks.close()

    def call(self, function: str, *arguments: Any, seconds: float = 60, strace: list[str] | None = None) -> Ended:
        """Calls `module:function` with arguments that are JSON.

        Args:
            function: of a module in this folder.
            arguments: for it.
            seconds: after which it is killed.
            strace: strace's options, to run it under strace.
        """
        pid = self._forks.start({"function": function, "arguments": arguments, "traced": strace is not None})
        log, tracer = self._folder / "trace", None
        if strace is not None:
            log.write_text("")
            tracer = subprocess.Popen(["strace", "-f", "-y", "-qq", "-o", str(log), *strace, "-p", str(pid)])
        try:
            code, hung = self._forks.end(pid, seconds)
        finally:
            if tracer is not None:
                tracer.wait(timeout=60)
        output, error = ((self._folder / name).read_text(errors="replace") for name in ("output", "error"))
        trace = log.read_text(errors="replace").splitlines() if strace is not None else []
        return Ended(code, output, error, hung, trace)


def needs_strace() -> pytest.MarkDecorator:
    """Skips, by name, where strace is missing or may not attach."""
    try:
        done = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, check=False)
        works = done.returncode == 0
    except OSError:
        works = False
    return pytest.mark.skipif(not works, reason="needs strace, and the right to trace")


def calls(trace: list[str]) -> dict[str, int]:
    """The most calls of each system call that one thread made: strace counts by threads."""
    by_thread: dict[tuple[str, str], int] = {}
    for line in trace:
        if match := re.match(r"(\d+) +(\w+)\(", line):
            thread, name = match.groups()
            by_thread[thread, name] = by_thread.get((thread, name), 0) + 1
    return {
        name: max(count for (_, other), count in by_thread.items() if other == name)
        for name in sorted({name for _, name in by_thread})
    }


def _serve(folder: Path) -> None:
    importlib.import_module("tfmb.training.checkpoint.checkpointer")  # so that no fork has to: it takes seconds

    serve(lambda job: _run(job, folder))


def _run(job: dict[str, Any], folder: Path) -> int:
    import importlib
    import traceback
    import warnings

    warnings.simplefilter("ignore")
    for descriptor, name in ((1, "output"), (2, "error")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 0
    try:
        module, function = job["function"].split(":")
        call = getattr(importlib.import_module(module), function)
        if job["traced"]:
            _await_tracer()
        call(*job["arguments"])
    except BaseException as error:
        # As the command line: what is not our own error is one of input or output, or a bug.
        code = getattr(error, "exit_code", 74 if isinstance(error, OSError) else 1)
        message = traceback.format_exc() if code == 1 else str(error)
        os.writev(2, [f"{message}\n".encode()])  # `write` may be made to fail
    sys.stdout.flush()
    return code


def _await_tracer() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(-1))  # lets a process that is no parent attach
    until = time.monotonic() + 30
    while re.search(r"TracerPid:\s+0\b", Path("/proc/self/status").read_text()):
        if time.monotonic() > until:
            raise RuntimeError("strace did not attach")
        time.sleep(0.001)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
