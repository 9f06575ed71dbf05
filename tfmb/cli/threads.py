"""How many threads an update is fastest with: timed in children, because TensorFlow fixes them when it starts."""

import dataclasses
import math
import os
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from tfmb.environment.children import ask
from tfmb.environment.console import start_tensorflow
from tfmb.environment.processor import available_cores as cores
from tfmb.errors import ConfigError
from tfmb.jobs.config import TrainConfig

__all__ = ["best_of", "cores", "counts", "described", "fewer_threads", "known_threads", "seconds_by_threads"]

# Numbers of threads that are compared with one a core; a number is better where it is faster by this share.
_THREADS, _FASTER = (1, 2, 4, 8, 16, 32), 0.05
# A child starts TensorFlow, loads the data and traces: about ten seconds, which so many seconds of training are worth.
_WORTH_SECONDS_A_CHILD = 300.0
_CHILD_SECONDS = 600
_KIND = "threads"
# The options that decide how long an update takes.
_DECIDING = (
    *("dataset", "augment", "model", "batch_size", "optimizer", "precision", "strategy", "devices"),
    *("pad_batches", "measure_noise_scale"),
)


def counts() -> list[int]:
    """The numbers of threads that may be better than one a core."""
    return [count for count in _THREADS if count < cores()]


def seconds_by_threads(config: TrainConfig, numbers: Iterable[int], compiled: str = "nothing") -> dict[int, float]:
    """Seconds of an update of a configuration, by each of some numbers of threads, each timed in a new process.

    Raises:
        ConfigError: a child failed.
    """
    return {number: _seconds_with(config, number, compiled) for number in numbers}


def best_of(seconds: dict[int, float], now: float) -> int | None:
    """The number of threads that is faster than `now` seconds; None where none is."""
    best = min(seconds, key=lambda count: seconds[count], default=None)
    return best if best is not None and seconds[best] < (1 - _FASTER) * now else None


def known_threads(config: TrainConfig) -> dict[int, float] | None:
    """What `fewer_threads` found for such a training before, by the number of threads; None where it never looked."""
    if not _is_free(config):
        return None
    from tfmb.storage.cache import recall

    try:
        found = {int(count): float(seconds) for count, seconds in recall(_KIND, _fingerprint(config)).items()}
    except (AttributeError, OverflowError, TypeError, ValueError):
        return None
    asked = {*counts(), cores()}
    whole = cores() in found and set(found) <= asked and all(0 < seconds < math.inf for seconds in found.values())
    return found if whole else None


def fewer_threads(config: TrainConfig, compiled: str, seconds: float) -> dict[int, float] | None:
    """Seconds of an update by number of threads, for a training of so many seconds; None where nothing is looked at:
    the training is not worth it, or the answer is known.

    The answer is kept in the cache: see `known_threads`.

    Raises:
        ConfigError: a child failed.
    """
    numbers = [*counts(), cores()]
    if not _is_free(config) or len(numbers) < 2 or known_threads(config) is not None:
        return None
    if seconds < _WORTH_SECONDS_A_CHILD * len(numbers):
        return None
    from tfmb.storage.cache import remember

    found = seconds_by_threads(config, numbers, compiled)
    remember(_KIND, _fingerprint(config), found)
    return found


def described(seconds: dict[int, float]) -> str:
    """For the user: what was chosen, and of what."""
    best = best_of(seconds, seconds[cores()]) or cores()
    measured = ", ".join(f"{1000 * value:.3g} ms with {count}" for count, value in sorted(seconds.items()))
    return f"threads: {best} (measured, an update: {measured})"


def _is_free(config: TrainConfig) -> bool:
    """Whether the number of threads is ours to choose: neither option nor environment says it, nor must bits stay."""
    given = config.threads is not None or "TF_NUM_INTRAOP_THREADS" in os.environ
    workers = "TF_CONFIG" in os.environ or config.strategy in ("multi-worker", "tpu")
    return not (given or workers or config.deterministic or config.virtual_replicas or config.micro_batch_size)


def _fingerprint(config: TrainConfig) -> dict[str, Any]:
    from tfmb.environment.processor import processor_name

    options = config.to_dict()
    versions = {name: metadata.version(name) for name in ("tfmb", "tensorflow", "keras")}
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    machine = {"cores": cores(), "processor": processor_name(), "devices": devices, "jit_compile": config.jit_compile}
    return {**{name: options[name] for name in _DECIDING}, **versions, **machine}


def _seconds_with(config: TrainConfig, threads: int, compiled: str) -> float:
    told = dataclasses.replace(config, threads=threads, jit_compile=compiled)
    ended = ask(_timed, told.to_dict(), _CHILD_SECONDS)
    if ended.code:
        raise ConfigError(f"the profile with {threads} thread(s) failed ({ended.last_words}): give --threads")
    return float(ended.answer())


def _timed(options: dict[str, Any]) -> float:
    """Seconds of an update, in a process that has not started TensorFlow."""
    config = TrainConfig.from_dict(options, "standard input")
    start_tensorflow(config.threads)
    from tfmb.jobs.timing import time_update

    return time_update(config)
