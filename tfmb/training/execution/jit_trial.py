"""The part of an update that XLA compiles: as asked for, or the fastest in a short trial.

A trial makes real updates with each candidate and takes them back. It is worth its time only before a long training,
and its answer is kept in the cache for the same model, batch and machine.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfmb.backend import tf
from tfmb.choices import COMPILE_NAMES, JitScope
from tfmb.errors import ConfigError, DataError
from tfmb.optimizers.optimizer import raw_variable, value_of
from tfmb.storage.cache import recall, remember
from tfmb.types import Dataset

__all__ = ["TRIED", "ExecutionPlan", "autotune", "parse_jit_compile", "recorded_jit_scope"]

# The answers' folder in the cache.
_KIND = "execution"
# A training that takes longer than this by TensorFlow's own kernels is worth a trial, which takes some seconds.
_WORTH_SECONDS = 20.0
# One of fewer updates is not looked at.
_WORTH_UPDATES = 100
# A candidate is timed so often over about this long, and its best time counts: a machine that halts for a moment must
# not end its chances. Then so many rounds more if it took at most so many times the best one's time; it is chosen where
# it is faster by more than this share.
_TRIES, _TIMED_SECONDS, _ROUNDS, _NEAR, _FASTER = 3, 0.15, 6, 1.5, 0.03
# A candidate whose single update takes longer than this, and thrice the best one's, is not timed any further.
_HOPELESS_SECONDS = 0.1
# Whole steps are compiled only where an update is short, or fairly short and made of short operations: it is starting
# operations that XLA spares, and a large model takes it minutes and much memory. Where one compiled step is so many
# times slower, many in a call are too: XLA's convolutions.
_SHORT_SECONDS, _FAIRLY_SHORT_SECONDS, _SHORT_OPERATION_SECONDS, _TOO_SLOW = 0.005, 0.02, 15e-6, 1.5


# The candidates of a trial, in their order.
TRIED = (JitScope.NOTHING, JitScope.UPDATE, JitScope.STEP, JitScope.CALL)


@dataclass(frozen=True, kw_only=True)
class ExecutionPlan:
    """The plan of a training's execution.

    Attributes:
        compiled: the part of the work that XLA compiles.
        seconds: of an update, by candidate, where a trial was made.
        cached: whether that trial was an earlier training's.
        tracing_seconds: the time of tracing and compiling in this training's trial.
    """

    compiled: JitScope = JitScope.NOTHING
    seconds: dict[str, float] = field(default_factory=dict)
    cached: bool = False
    tracing_seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """Returns the fields for `run.json`."""
        return {
            "compiled": self.compiled.value,
            "seconds_an_update": self.seconds,
            "cached": self.cached,
            "tracing_seconds": self.tracing_seconds,
        }

    def __str__(self) -> str:
        measured = ", ".join(f"{name} {1000 * seconds:.3g} ms" for name, seconds in self.seconds.items())
        source = f" (measured{' before' if self.cached else ''}, an update: {measured})" if measured else ""
        return f"XLA compiles {_WORDS[self.compiled]}{source}"


_WORDS = {
    JitScope.NOTHING: "nothing",
    JitScope.UPDATE: "the optimizer's update",
    JitScope.GRADIENTS: "gradients",
    JitScope.STEP: "each step",
    JitScope.CALL: "many steps at once",
}


def parse_jit_compile(jit_compile: bool | str) -> JitScope | None:
    """Returns the scope that `jit_compile` asks for; None for `"auto"`.

    Raises:
        ConfigError: an unknown value.
    """
    if isinstance(jit_compile, bool):
        return JitScope.GRADIENTS if jit_compile else JitScope.NOTHING
    if jit_compile not in COMPILE_NAMES:
        raise ConfigError(f"jit_compile={jit_compile!r} must be True, False, {', '.join(map(repr, COMPILE_NAMES))}")
    return None if jit_compile == "auto" else JitScope(jit_compile)


def recorded_jit_scope(record: Any) -> JitScope:
    """Returns XLA's scope in the run of a record, from its `execution`.

    Raises:
        DataError: it makes no sense.
    """
    try:
        return JitScope(record["compiled"])
    except (TypeError, KeyError, ValueError) as error:
        raise DataError("the record does not say what XLA compiled: it is damaged") from error


def autotune(
    make_steps: Callable[[JitScope], Any],
    draw: Callable[[], Any],
    state: Callable[[], Sequence[Any]],
    updates: int,
    fingerprint: dict[str, Any],
    candidates: Sequence[JitScope] = TRIED,
) -> ExecutionPlan:
    """Returns the fastest execution of `updates` updates: the cache's, a trial's, or the default if no trial pays.

    Args:
        make_steps: candidate -> `Steps`.
        draw: gives `RowsOfBatches` for the trial alone, or None.
        state: gives all variables that an update moves; they have their values again after a trial.
        updates: the number of updates to be made.
        fingerprint: all that decides which is fastest, for the cache.
        candidates: those that the training can use, in the order of `TRIED`.
    """
    if (known := _known(fingerprint)) is not None:
        return known
    if updates < _WORTH_UPDATES or (batches := draw()) is None:
        return ExecutionPlan()
    variables, traced = state(), list[float]()
    before = [value_of(raw_variable(variable)) for variable in variables]
    try:
        seconds = _trial(make_steps, batches, updates, candidates, traced.append)
    finally:
        for variable, value in zip(variables, before, strict=True):
            raw_variable(variable).assign(value)
    if len(seconds) < 2:
        return ExecutionPlan(tracing_seconds=sum(traced))
    best = min(seconds, key=lambda name: seconds[name])
    if seconds[best] > (1 - _FASTER) * seconds[JitScope.NOTHING.value]:
        best = JitScope.NOTHING.value
    found = ExecutionPlan(compiled=JitScope(best), seconds=seconds, tracing_seconds=sum(traced))
    remember(_KIND, fingerprint, {"compiled": found.compiled.value, "seconds": found.seconds})
    return found


def _trial(
    make_steps: Callable[[JitScope], Any],
    batches: Dataset,
    updates: int,
    candidates: Sequence[JitScope] = TRIED,
    traced: Callable[[float], None] = lambda seconds: None,
) -> dict[str, float]:
    """Seconds of an update by candidate; of the first alone where no trial is worth it."""
    seconds: dict[str, float] = {}
    rivals: dict[str, tuple[Any, int]] = {}
    short = False
    for candidate in candidates:
        if candidate in (JitScope.STEP, JitScope.CALL) and not short:
            continue
        too_slow = seconds.get(JitScope.STEP.value, 0.0) > _TOO_SLOW * seconds.get(JitScope.NOTHING.value, math.inf)
        if candidate is JitScope.CALL and too_slow:
            continue
        steps = make_steps(candidate)
        steps.prepare(batches.element_spec)
        try:
            traced(_seconds_of(steps, batches, 1))
            once = _seconds_of(steps, batches, 1)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            continue  # an op that XLA does not know
        if not seconds and once * updates < _WORTH_SECONDS:
            return {candidate.value: once}
        if seconds and once > max(_HOPELESS_SECONDS, 3 * min(seconds.values())):
            seconds[candidate.value] = once
            continue
        count = max(1, min(100, math.ceil(_TIMED_SECONDS / max(once, 1e-6))))
        rivals[candidate.value] = steps, count
        seconds[candidate.value] = min(_seconds_of(steps, batches, count) / count for _ in range(_TRIES))
        if candidate is JitScope.NOTHING:
            short = _is_short(seconds[candidate.value], steps.operations)
    for _ in range(_ROUNDS):  # in turns: a change of the machine's pace is to meet all of them
        for name, (steps, count) in rivals.items():
            if seconds[name] < _NEAR * min(seconds.values()):
                seconds[name] = min(seconds[name], _seconds_of(steps, batches, count) / count)
    return seconds


def _is_short(seconds: float, operations: int) -> bool:
    """Whether starting operations may take much of an update that has `operations` of them."""
    return seconds <= _SHORT_SECONDS or seconds <= min(_FAIRLY_SHORT_SECONDS, _SHORT_OPERATION_SECONDS * operations)


def _seconds_of(steps: Any, batches: Dataset, count: int) -> float:
    """Returns the seconds of `count` updates, by as many as come in one block of whole batches."""
    rows = batches.take(count)
    if rows.numbers.shape[1] < batches.batch_size:
        batches.move_on(1)  # past the smaller batch at the end of an epoch
        rows = batches.take(count)
    started = time.perf_counter()
    _, _, done = steps.train_rows(batches.arrays, *rows)
    made = max(int(done), 1)
    seconds = time.perf_counter() - started
    batches.move_on(made)
    return seconds * count / made


def _known(fingerprint: dict[str, Any]) -> ExecutionPlan | None:
    """Returns the cache's answer, or None if there is none that makes sense."""
    try:
        found = recall(_KIND, fingerprint)
        seconds = {str(JitScope(name).value): float(value) for name, value in found["seconds"].items()}
        if not all(0 < value < math.inf for value in seconds.values()):
            return None
        return ExecutionPlan(compiled=JitScope(found["compiled"]), seconds=seconds, cached=True)
    except (ValueError, KeyError, OverflowError, TypeError, AttributeError):
        return None
