"""Batch, stochastic and mini-batch gradient descent side by side on one's own data: the textbook's table, measured."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfmb.advice.lr_range import sweep
from tfmb.advice.short_runs import AdviceTask, ShortRun, ShortRuns
from tfmb.advice.target import Target
from tfmb.errors import ConfigError

__all__ = ["Comparison", "Method", "compare"]

# The most examples of a batch that are in memory at a time.
_MICRO_BATCH = 2048
_LOW, _HIGH, _UPDATES = 1e-6, 30.0, 120
# Of smaller batches a range test takes as many examples as of this one: the loss of a few is noise.
_NOISY = 16
_MOST_UPDATES = 10**7


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of gradient descent.

    Attributes:
        name: `batch`, `mini-batch` or `stochastic`.
        batch_size: examples an update.
        learning_rate: from a range test of its own.
        noise: the mean squared distance of such a batch's gradient from that of all examples, as a share of the
            latter's square; None if it was not measured.
        updates_an_epoch: of a pass over the data.
        epoch_seconds: of a pass.
        run: the training.
        values: at its looks, all metrics at the last one.
        cores: that were busy on average while it trained.
        peak_bytes: of a process that trains with such batches whole; None if that is not known.
        memory_note: why there is none.
    """

    name: str
    batch_size: int
    learning_rate: float
    noise: float | None = None
    updates_an_epoch: int
    epoch_seconds: float
    run: ShortRun
    values: dict[str, float]
    cores: float
    peak_bytes: int | None = None
    memory_note: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of all methods on one problem.

    Attributes:
        name: of the problem, for people.
        target: the target, whose seconds are recorded.
        seconds: of training that each had.
        examples: of the training data.
        methods: in order of their batch size, the largest first.
        cost_seconds: of all.
    """

    name: str
    target: Target
    seconds: float
    examples: int
    methods: tuple[Method, ...]
    cost_seconds: float

    def record(self) -> dict[str, Any]:
        """Returns the fields for JSON."""
        return {
            "target": str(self.target),
            "seconds": self.seconds,
            "examples": self.examples,
            "methods": [
                {
                    "name": method.name,
                    "batch_size": method.batch_size,
                    "learning_rate": method.learning_rate,
                    "gradient_noise": method.noise,
                    "updates_an_epoch": method.updates_an_epoch,
                    "epoch_seconds": method.epoch_seconds,
                    "updates": method.run.looks[-1].updates if method.run.looks else 0,
                    "updates_to_target": method.run.updates,
                    "seconds_to_target": seconds_to_target(method.run),
                    "final": method.values,
                    "busy_cores": method.cores,
                    "peak_bytes": method.peak_bytes,
                }
                for method in self.methods
            ],
            "cost_seconds": round(self.cost_seconds, 2),
        }


def seconds_to_target(run: ShortRun) -> float | None:
    """The seconds of training up to the look that reached the target; None if no look did."""
    if run.updates is None:
        return None
    updates, seconds = zip((0, 0.0), *((look.updates, look.seconds) for look in run.looks), strict=True)
    return float(np.interp(run.updates, updates, seconds))


def compare(
    problem: AdviceTask,
    target: Target,
    *,
    batch_size: int = 64,
    seconds: float = 30.0,
    name: str = "a model",
    peak_of: Callable[[int], tuple[int | None, str]] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Trains with all examples, a mini-batch and one example an update, each for the same time.

    Args:
        problem: the model, data and options to train with.
        target: the record has the seconds to reach it; no training ends at it.
        batch_size: of the mini-batch.
        seconds: of training for each, without looks, tracing and range tests.
        name: of the problem, for people.
        peak_of: batch size -> the most memory of a process that trains with it, or why that is not known; None leaves
            memory out.
        say: gets a line for the user now and then.

    Raises:
        ConfigError: arguments that make no sense, or a model that cannot be trained.
    """
    began = time.perf_counter()
    examples = problem.train.size
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or not 1 < batch_size < examples:
        raise ConfigError(f"batch_size={batch_size!r} must be an integer between 1 and {examples:,}, all examples")
    if not 0 < seconds < math.inf:
        raise ConfigError(f"seconds={seconds!r} must be more than 0")
    runs = ShortRuns(problem)
    methods = []
    for kind, size in (("batch", examples), ("mini-batch", batch_size), ("stochastic", 1)):
        rate = _rate(runs, size)
        processor, wall = _processor_seconds(), time.perf_counter()
        parts = _MICRO_BATCH if size > _MICRO_BATCH else None
        run = runs.run(
            size, rate, target, most_updates=_MOST_UPDATES, most_seconds=seconds, micro_batch_size=parts, stops=False
        )
        cores = (_processor_seconds() - processor) / (time.perf_counter() - wall)
        values = runs.values()
        peak, note = (None, "") if peak_of is None else peak_of(size)
        each = run.step_seconds or (run.looks[-1].seconds / max(run.looks[-1].updates, 1) if run.looks else math.nan)
        an_epoch = math.ceil(examples / size)
        methods.append(
            Method(
                name=kind,
                batch_size=size,
                learning_rate=rate,
                updates_an_epoch=an_epoch,
                epoch_seconds=an_epoch * each,
                run=run,
                values=values,
                cores=cores,
                peak_bytes=peak,
                memory_note=note,
            )
        )
        say(f"{kind} gradient descent: {run.looks[-1].updates if run.looks else 0:,} updates")
    noises = _noises(runs, [method.batch_size for method in methods])
    return Comparison(
        name=name,
        target=target,
        seconds=seconds,
        examples=examples,
        methods=tuple(replace(method, noise=noise) for method, noise in zip(methods, noises, strict=True)),
        cost_seconds=time.perf_counter() - began,
    )


def _rate(runs: ShortRuns, size: int) -> float:
    """Returns a rate from a range test at this batch size, or at a large one if it is too large for a test."""
    updates = _UPDATES if size >= _NOISY else _UPDATES * _NOISY // size
    curve = sweep(runs, min(size, _MICRO_BATCH), _LOW, _HIGH, updates)
    if curve.learning_rate is None:
        raise ConfigError(f"no learning rate was found for batch size {size}: {curve.reason}")
    return curve.learning_rate


def _noises(runs: ShortRuns, sizes: Sequence[int]) -> list[float | None]:
    """Returns the noise of the gradients at the start, which all methods share; None if it is undetermined."""
    single, signal = runs.noise_at_start().means
    everything = max(sizes)
    if not (single > 0 and signal > 0):
        return [None] * len(sizes)
    # Drawn without putting back: the variance of a mean falls to 0 where all are drawn.
    return [single / size * (everything - size) / max(everything - 1, 1) / signal for size in sizes]


def _processor_seconds() -> float:
    found = os.times()
    return found.user + found.system
