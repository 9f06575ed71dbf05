"""Child processes: they get a message and give an answer, or live longer and are watched.

Each leads a session of its own: Ctrl-C comes through us alone, and its own children end with it.
"""

import contextlib
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from tfmb.errors import TfmbError

__all__ = ["Ended", "ask", "command_of", "copy_lines", "describe", "end", "reply", "run", "send", "start"]

_LOOK_SECONDS = 0.05
_MOST_WORDS = 300


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A child that ended.

    Attributes:
        code: its exit code; negative for a signal.
        output: its standard output; empty where it was killed.
        errors: its standard error; empty where it was killed.
        stopped: the reason that it was killed for; empty where it ended by itself.
    """

    code: int
    output: str = ""
    errors: str = ""
    stopped: str = ""

    @property
    def last_words(self) -> str:
        """The reason for its end, in a line: ours, else the last line of its standard error, else its code."""
        return self.stopped or (self.errors.strip().splitlines() or [describe(self.code)])[-1][:_MOST_WORDS]

    def answer(self) -> Any:
        """Returns the JSON of the last line of its output.

        Raises:
            ValueError: there is none.
        """
        return json.loads("".join(self.output.splitlines()[-1:]))


def describe(code: int) -> str:
    """Returns an exit code in words; a negative one is a signal's."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def start(
    command: Sequence[str], environment: dict[str, str] | None = None, *, hears: bool = False
) -> subprocess.Popen[str]:
    """Starts a command, whose output and errors are pipes of text.

    Args:
        command: the program and its arguments.
        environment: its variables; None for ours.
        hears: whether its input is a pipe too; else it is ours.

    Raises:
        OSError: it cannot be started.
    """
    return subprocess.Popen(
        list(command),
        env=environment,
        stdin=subprocess.PIPE if hears else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def run(
    command: Sequence[str],
    told: str = "",
    *,
    seconds: float = math.inf,
    watch: Callable[[int], str] | None = None,
    environment: dict[str, str] | None = None,
) -> Ended:
    """Runs a command to its end.

    Args:
        command: the program and its arguments.
        told: its standard input.
        seconds: after which it is killed.
        watch: gets the number of the process again and again, and returns a reason to kill it, or nothing.
        environment: its variables; None for ours.

    Raises:
        OSError: it cannot be started.
    """
    deadline, stopped = time.monotonic() + seconds, ""
    with start(command, environment, hears=True) as process:
        # `communicate` would forget what of the input it has not sent when its time is over.
        pipe, process.stdin = process.stdin, None
        threading.Thread(target=_write, args=(pipe, told), daemon=True).start()
        try:
            while not stopped:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    output, errors = process.communicate(timeout=_LOOK_SECONDS)
                    return Ended(code=process.returncode, output=output, errors=errors)
                if time.monotonic() >= deadline:
                    stopped = f"it took more than {seconds:.0f} s"
                elif watch is not None:
                    stopped = watch(process.pid)
        finally:
            send(process, signal.SIGKILL)
    return Ended(code=-signal.SIGKILL, stopped=stopped)


def _write(pipe: IO[str], text: str) -> None:
    """Writes a child's input to its end, however late the child reads it."""
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(text)


def ask(work: Callable[[Any], Any], message: Any, seconds: float = math.inf) -> Ended:
    """Runs a function of a module in a fresh interpreter.

    Args:
        work: gets the message; returns the answer, of values that JSON knows.
        message: of values that JSON knows.
        seconds: after which it is killed.
    """
    return run(command_of(work), json.dumps(message), seconds=seconds)


def command_of(work: Callable[[Any], Any]) -> list[str]:
    """The command of `ask`, which gets the message as JSON on its standard input."""
    code = "import sys; from tfmb.environment import children; sys.exit(children.reply(sys.argv[1]))"
    return [sys.executable, "-c", code, f"{work.__module__}:{work.__qualname__}"]


def reply(name: str) -> int:
    """Answers the message of `ask`, in the child.

    Args:
        name: `module:function`.

    Returns:
        The exit code: 0, or that of a `TfmbError` of the function, which is written as one line.
    """
    module, _, function = name.partition(":")
    try:
        answer = getattr(importlib.import_module(module), function)(json.load(sys.stdin))
    except TfmbError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    print(f"\n{json.dumps(answer)}", flush=True)  # a line of its own, whatever was written before
    return 0


def copy_lines(source: IO[str], target: IO[str], prefix: str) -> threading.Thread:
    """Copies a child's output to its end, in a thread: line by line, with a prefix; then closes the pipe.

    Args:
        source: the pipe.
        target: the output.
        prefix: of each line.

    Returns:
        The thread, which was started.
    """

    def copy() -> None:
        with source, contextlib.suppress(ValueError):  # the target was closed
            for line in source:
                target.write(f"{prefix}{line.rstrip(chr(10))}\n")
                target.flush()

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


def send(process: subprocess.Popen[Any], number: int) -> None:
    """Sends a signal to a child and its own children; nothing to a child whose end is known."""
    if process.returncode is None:  # until then its number is nobody else's
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses where it is dead already
            os.killpg(process.pid, number)


def end(processes: Iterable[subprocess.Popen[Any]], grace_seconds: float) -> None:
    """Asks children to end, gives all of them some seconds together, and kills those that are left."""
    processes = list(processes)
    for process in processes:
        send(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0))
        send(process, signal.SIGKILL)
        process.wait()
