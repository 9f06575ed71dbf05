"""A command of `tfmb` in a process forked for it, ended when it has shown that it works, and what came of it."""

import contextlib
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from exports import checked_here

from tfmb.cli import main

__all__ = ["FIRST_LINE", "Ended", "run"]

# Seconds to the first line. A command that starts by itself imports TensorFlow besides, for less than the rest to 20.
FIRST_LINE = 12.0
_ENOUGH, _GRACE, _LONGEST = 6.0, 15.0, 120.0


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        words: the command line.
        code: the exit code, or minus the signal.
        out: standard output.
        err: standard error.
        told: whether it was told to end, as it had shown enough.
        first: seconds to the first line, or to the end where there was none.
    """

    words: list[str]
    code: int
    out: str
    err: str
    told: bool
    first: float

    def __str__(self) -> str:
        words = " ".join(word if len(word) < 60 else f"{word[:50]}..." for word in self.words)
        return f"{words!r} -> {self.code} after {self.first:.1f} s: {self.err[-900:]!r} {self.out[-300:]!r}"


def run(words: list[str], folder: Path, until: str | None = None) -> Ended:
    """Runs `tfmb WORDS` in a folder; the calling process must have run no TensorFlow.

    Args:
        words: the command line.
        folder: where.
        until: a pattern of files in the folder: the command is told to end when one is there. None lets it work for
            some seconds from its first line on.
    """
    files = [folder.parent / f"{folder.name}.{name}" for name in ("out", "err")]
    for file in files:
        file.write_bytes(b"")
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _work(words, folder, files)
    first = told_at = None
    status = None
    while status is None:
        time.sleep(0.01)
        now = time.monotonic() - begun
        if first is None and any(file.stat().st_size for file in files):
            first = now
        ended, waited = os.waitpid(pid, os.WNOHANG)
        status = waited if ended else None
        if status is not None or now < FIRST_LINE / 100:
            continue
        enough = any(folder.glob(until)) if until else first is not None and now > first + _ENOUGH
        if told_at is None and (enough or now > _LONGEST):
            os.kill(pid, signal.SIGTERM)
            told_at = now
        elif told_at is not None and now > told_at + _GRACE:
            _kill_all(pid)
    if first is None:
        first = time.monotonic() - begun
    _kill_all(pid)
    out, err = (file.read_text(errors="replace") for file in files)
    return Ended(words, os.waitstatus_to_exitcode(status), out, err, told_at is not None, first)


def _kill_all(group: int) -> None:
    """Kills what is left of a command and of the processes that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _work(words: list[str], folder: Path, files: list[Path]) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for descriptor, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), descriptor)
    os.chdir(folder)
    code: object = 1
    try:
        with checked_here():
            code = main(words)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)
