"""Runs batches of fuzzed inputs in processes of their own, and counts what came out."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from fork_server import ForkServer

__all__ = ["each_option", "files", "options", "words"]

_TESTS = Path(__file__).parents[1]
_BATCH = 50


def files(server: ForkServer, folder: Path, kind: str, seeds: range) -> Counter[str]:
    """How often damaged files of a kind (a key of `fuzz_files.KINDS`) were "refused" or gave an "equal" result.

    Anything else, a signal and a hang included, fails, with its seed.
    """
    outcomes: Counter[str] = Counter()
    for first in range(seeds.start, seeds.stop, _BATCH):
        count = min(_BATCH, seeds.stop - first)
        ended = server.call("fuzz_files:batch", kind, first, count, str(folder / kind), seconds=120)
        assert (ended.code, ended.hung) == (0, False), (kind, ended.output[-1:], ended.error[-2000:])
        outcomes += _count(kind, [line for line in ended.output if not line.endswith(" begins")], count)
    return outcomes


def words(folder: Path, kind: str, seeds: range) -> Counter[str]:
    """The same for a key of `fuzz_words.KINDS`, in a process without TensorFlow."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(_TESTS / "helpers" / "fuzz_words.py"), kind, str(seeds.start), str(len(seeds))],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_TESTS.parent), str(_TESTS / "helpers")])},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return _count(kind, done.stdout.splitlines(), len(seeds))


def options(server: ForkServer, folder: Path, seeds: range, commands: list[str] | None = None) -> Counter[str]:
    """How often random command lines of each command came to what: see `fuzz_options.batch`. Anything else fails."""
    _call(server, "prepare", str(folder / "made"), seconds=300)
    outcomes: Counter[str] = Counter()
    for first in range(seeds.start, seeds.stop, _BATCH):
        count = min(_BATCH, seeds.stop - first)
        lines = _call(server, "batch", first, count, str(folder / "made"), commands, seconds=60 * count)
        assert len(lines) == count
        outcomes.update(line.split(" ", 1)[1] for line in lines)
    return outcomes


def each_option(server: ForkServer, folder: Path, command: str) -> Counter[str]:
    """How often a command with one option came to what, for each option and value: see `fuzz_options.each`."""
    _call(server, "prepare", str(folder / "made"), seconds=300)
    lines = _call(server, "each", command, str(folder / "made"), seconds=3600)
    return Counter(line.split(" ", 2)[2] for line in lines)


def _call(server: ForkServer, function: str, *arguments: Any, seconds: float) -> list[str]:
    """The lines of a function of `fuzz_options`, of which none may say that something is wrong."""
    ended = server.call(f"fuzz_options:{function}", *arguments, seconds=seconds)
    assert (ended.code, ended.hung) == (0, False), (arguments, ended.output[-1:], ended.error[-2000:])
    wrong = [line for line in ended.output if " WRONG: " in line]
    assert not wrong, "\n".join(wrong)
    return ended.output


def _count(kind: str, lines: list[str], count: int) -> Counter[str]:
    wrong = [line for line in lines if line.split(" ", 1)[1] not in ("refused", "equal")]
    assert not wrong, (kind, wrong)
    assert len(lines) == count, (kind, lines[-1:])
    return Counter(line.split()[1] for line in lines)
