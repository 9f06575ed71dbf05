"""The largest batch that fits: each candidate trains and evaluates in a process of its own, which may die of it."""

import contextlib
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfmb.environment import children
from tfmb.environment.console import start_tensorflow
from tfmb.errors import TfmbError
from tfmb.jobs.config import ProblemConfig

__all__ = [
    "OUT_OF_MEMORY",
    "LargestBatch",
    "NothingFitsError",
    "Trial",
    "free_memory",
    "largest_batch",
    "largest_that_fits",
    "try_batch",
    "try_in_process",
]

# What a process of its own must take to start and train a few updates, before it counts as one that hangs.
_SECONDS = 300.0
# Of the batch size: a size that is known to run, and one so much larger that is known not to, are enough.
_TOLERANCE = 0.05
# Updates of a candidate, and a rate at which nothing diverges.
_UPDATES, _RATE = 2, 1e-6
# What is left to everybody else while a batch is tried.
_SPARED = 0.05
_ALL_TAKEN = "it takes nearly all memory that is left"
# The kernel's end of a process that takes too much, and that of a C++ allocation which fails.
_ENDS_OF_MEMORY = ("SIGKILL", "SIGABRT")
# The exit code of a process that notices it.
OUT_OF_MEMORY = 4


class NothingFitsError(TfmbError):
    """Memory is too small for a model with a single example (exit code 4)."""

    exit_code = OUT_OF_MEMORY


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One batch size that was tried.

    Attributes:
        batch_size: examples.
        fits: whether it trained and evaluated.
        why: it did not.
        out_of_memory: whether it did not for want of memory, as far as its end tells.
        peak_bytes: of the process's memory; None if it did not end by itself.
    """

    batch_size: int
    fits: bool
    why: str = ""
    out_of_memory: bool = False
    peak_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class LargestBatch:
    """The largest batch size that ran.

    Attributes:
        batch_size: it did run; None if not even one example did.
        reason: why no larger one was chosen.
        trials: all that were tried, in order.
    """

    batch_size: int | None
    reason: str
    trials: tuple[Trial, ...]


def largest_that_fits(fits: Callable[[int], Trial], most: int, tolerance: float = 0.0) -> LargestBatch:
    """Finds the largest batch size: doubling until one does not fit, then halving the gap.

    It takes at most 2 log2(limit) + 4 trials.

    Args:
        fits: tries a batch size.
        most: no larger one is tried.
        tolerance: the gap, as a share of the answer, that may be left between what ran and what did not.
    """
    trials: list[Trial] = []

    good, bad = 0, most + 1
    while good < most and (bad > most or bad - good > max(1, tolerance * good)):
        size = min(max(2 * good, 1), most) if bad > most else (good + bad) // 2
        trials.append(fits(size))
        good, bad = (size, bad) if trials[-1].fits else (good, size)
    if good == most:
        reason = f"all {most:,} examples fit in one batch"
    else:
        failed = next(trial for trial in reversed(trials) if trial.batch_size == bad)
        reason = f"{bad:,} did not: {failed.why}"
    return LargestBatch(batch_size=good or None, reason=reason, trials=tuple(trials))


def largest_batch(config: dict[str, Any], most: int, say: Callable[[str], None] = lambda line: None) -> LargestBatch:
    """The largest batch of a problem: real updates and an evaluation, each candidate in a process of its own.

    Args:
        config: the fields of a `ProblemConfig`.
        most: no larger batch is tried.
        say: gets a line for each that was tried.
    """

    def fits(size: int) -> Trial:
        found = try_batch(config, size)
        peak = "" if found.peak_bytes is None else f", {found.peak_bytes / 2**20:,.0f} MiB at most"
        say(f"batch size {size:,}: {'fits' if found.fits else found.why}{peak}")
        return found

    return largest_that_fits(fits, most, _TOLERANCE)


def try_batch(config: dict[str, Any], batch_size: int) -> Trial:
    """Trains and evaluates a problem with one batch size, in a process of its own: see `largest_batch`."""
    told = json.dumps({**config, "batch_size": batch_size})
    return try_in_process(children.command_of(_train), told, batch_size, _SECONDS)


def _train(told: dict[str, Any]) -> dict[str, int]:
    """Trains a few updates and evaluates; returns the most memory that the process took."""
    with contextlib.suppress(OSError):  # not on Linux
        # The kernel ends this process, and not its parent, if memory runs out all the same.
        Path("/proc/self/oom_score_adj").write_text("1000")
    size = told.pop("batch_size")
    start_tensorflow()
    from tfmb.advice.jobs import problem_of
    from tfmb.advice.short_runs import ShortRuns
    from tfmb.advice.target import Target
    from tfmb.backend import tf

    try:
        problem, _ = problem_of(ProblemConfig(**told))
        never = Target(metric="val_loss", value=-1e300, rises=False)
        ShortRuns(problem).run(size, _RATE, never, most_updates=_UPDATES)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise NothingFitsError("out of memory") from error
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


def try_in_process(command: list[str], told: str, size: int, seconds: float) -> Trial:
    """Runs a command that reads `told` and prints a line of JSON with its `peak_bytes` when all went well.

    The process is ended when it takes too long, or nearly all memory that is left: so nobody else is harmed by it.
    """
    available = _available_bytes()
    limit = math.inf if available is None else available * (1 - _SPARED)

    def watch(process: int) -> str:
        return _ALL_TAKEN if (_resident_bytes(process) or 0) > limit else ""

    ended = children.run(command, told, seconds=seconds, watch=watch)
    if ended.stopped:
        return Trial(batch_size=size, fits=False, why=ended.stopped, out_of_memory=ended.stopped == _ALL_TAKEN)
    if ended.code == 0:
        try:
            return Trial(batch_size=size, fits=True, peak_bytes=int(ended.answer()["peak_bytes"]))
        except (ValueError, KeyError, TypeError):
            return Trial(batch_size=size, fits=False, why="its process said nothing that makes sense")
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        why = f"its process ended by {name}, as out of memory does"
        return Trial(batch_size=size, fits=False, why=why, out_of_memory=name in _ENDS_OF_MEMORY)
    memory = ended.code == OUT_OF_MEMORY or "MemoryError" in ended.last_words
    return Trial(batch_size=size, fits=False, why=ended.last_words, out_of_memory=memory)


def free_memory() -> str:
    """Returns the free memory in MiB, for people."""
    free = _available_bytes()
    return "how much memory is free is not known here" if free is None else f"{free / 2**20:,.0f} MiB of memory is free"


def _available_bytes() -> int | None:
    """Returns the bytes that this process may still use, by the machine and its control group; None if unknown."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        found.append(limit)
    try:
        most = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if most != "max":
            found.append(int(most) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no control group of the second kind
    return min(found) if found else None


def _resident_bytes(process: int) -> int | None:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
