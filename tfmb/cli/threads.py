"""How many threads an update is fastest with: timed in children, because TensorFlow fixes them when it starts."""

import json
import os
import subprocess
import sys
from typing import Any

from tfmb.config import TrainConfig
from tfmb.errors import ConfigError

__all__ = ["best_of", "cores", "seconds_by_threads"]

# Numbers of threads that are compared with one a core; a number is better where it is faster by this share.
_THREADS, _FASTER = (1, 2, 4, 8, 16, 32), 0.05
_CHILD_SECONDS = 600


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seconds_by_threads(config: TrainConfig) -> dict[int, float]:
    """Seconds of an update of a configuration, by each number of threads below that of the cores.

    Raises:
        ConfigError: a child failed.
    """
    return {count: _seconds_with(config, count) for count in _THREADS if count < cores()}


def best_of(seconds: dict[int, float], now: float) -> int | None:
    """The number of threads that is faster than `now` seconds; None where none is."""
    best = min(seconds, key=lambda count: seconds[count], default=None)
    return best if best is not None and seconds[best] < (1 - _FASTER) * now else None


def _seconds_with(config: TrainConfig, threads: int) -> float:
    given: dict[str, Any] = {"model": config.model, "batch-size": config.batch_size, "dataset": config.dataset}
    given |= {"mirror": config.mirror, "replicas": config.replicas, "threads": threads}
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    command = [sys.executable, "-m", "tfmb", "doctor", "--profile", "--json", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_CHILD_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        why = str(error.stderr or error).strip()[-200:]
        raise ConfigError(f"the profile with {threads} thread(s) failed ({why}): give --threads") from error
    return float(json.loads(done.stdout.splitlines()[-1])["profile"]["seconds"])
