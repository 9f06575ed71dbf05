"""The times of an update's parts: input, gradient, reduction, update, and the rest, which is dispatch.

Each part is timed alone, many times in one call, and all of them together as the loop runs them. Parts that the whole
does at the same time add up to more than the whole.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tfmb.backend import tf
from tfmb.optimizers.optimizer import raw_variable, value_of
from tfmb.training.input.array_pipeline import RowsOfBatches, gather
from tfmb.training.step.train_step import Steps
from tfmb.training.step.update import first_entries
from tfmb.types import Tensor

__all__ = ["Profile", "profile", "seconds_of_update"]

_ROUNDS, _SECONDS = 3, 0.3


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Seconds of an update.

    Attributes:
        batch_size: examples.
        whole: as the loop makes it.
        input: drawing a batch.
        gradient: forward and backward passes, loss and metrics.
        reduction: adding up over replicas; 0 for one.
        update: the optimizer's rule.
    """

    batch_size: int
    whole: float
    input: float
    gradient: float
    reduction: float
    update: float

    @property
    def dispatch(self) -> float:
        """The rest of the whole: starting operations and calls, and checking that all is finite."""
        return max(0.0, self.whole - self.input - self.gradient - self.reduction - self.update)

    def shares(self) -> dict[str, float]:
        """Each part's share of their sum."""
        parts = {name: getattr(self, name) for name in ("input", "dispatch", "gradient", "reduction", "update")}
        return {name: seconds / max(sum(parts.values()), 1e-12) for name, seconds in parts.items()}

    def advice(self) -> str:
        """The advice that would help most."""
        shares = self.shares()
        shares.pop("gradient")
        worst = max(shares, key=lambda name: shares[name])
        if shares[worst] < 0.15:
            return "the gradient takes most of it: --precision mixed_bfloat16, more cores or another device"
        return _ADVICE[worst]


_ADVICE = {
    "input": "the input takes long: give arrays in memory, or less augmentation",
    "dispatch": "starting small operations takes long: a larger --batch-size, or on one CPU --jit-compile call",
    "reduction": "adding up over replicas takes long: fewer replicas, or a larger --batch-size",
    "update": "the optimizer's update takes long: --jit-compile update, or a larger --batch-size",
}


def profile(steps: Steps, batches: RowsOfBatches) -> Profile:
    """Times the parts of an update, and puts everything back as it was.

    Args:
        steps: of the model and optimizer, on any number of replicas of this process.
        batches: the training data.
    """
    optimizer, strategy = steps.placed.optimizer, steps.placed.strategy
    assert optimizer is not None
    steps.prepare(batches.element_spec)
    numbers, most = batches.take(100)
    arrays, first = batches.arrays, strategy.experimental_local_results
    batch = gather(arrays, numbers[0])
    means = [tf.convert_to_tensor(value_of(v)) * 1e-3 for v in steps.update.trainable]
    packed = tf.zeros([sum(int(tf.size(mean)) for mean in means)])

    def input_part(step: Any) -> Any:
        drawn = gather(arrays, tf.convert_to_tensor(numbers)[step % most])
        return first_entries(tf.nest.flatten(drawn))

    def gradient_part(step: Any) -> Any:
        del step
        return first(strategy.run(steps.first_gradients, args=(batch,)))[0]

    def reduction_part(step: Any) -> Any:
        def add_up() -> Any:
            context = tf.distribute.get_replica_context()
            # Sums of constants would be made once and for all.
            return context.all_reduce("sum", packed + tf.cast(step, tf.float32))[0]

        return first(strategy.run(add_up))[0]

    def update_part(step: Any) -> Any:
        del step

        def update() -> Any:
            return tf.cast(optimizer.apply(means), tf.float32)

        return first(strategy.run(update))[0]

    with _put_back(steps):
        several = strategy.num_replicas_in_sync > 1
        return Profile(
            batch_size=batches.batch_size,
            whole=_whole(steps, arrays, numbers, most),
            input=_seconds(input_part),
            gradient=_seconds(gradient_part),
            reduction=_seconds(reduction_part) if several else 0.0,
            update=_seconds(update_part),
        )


def seconds_of_update(steps: Steps, batches: RowsOfBatches) -> float:
    """Seconds of an update as the loop makes it; puts everything back as it was."""
    steps.prepare(batches.element_spec)
    with _put_back(steps):
        return _whole(steps, batches.arrays, *batches.take(100))


@contextlib.contextmanager
def _put_back(steps: Steps) -> Iterator[None]:
    """Gives every variable that an update moves its value again."""
    assert steps.placed.optimizer is not None
    scale = [] if steps.loss_scale is None else steps.loss_scale.variables
    state = [
        raw_variable(v)
        for v in (*steps.placed.model.variables, *steps.placed.optimizer.variables, *scale, *steps.update.state)
    ]
    before = [value_of(v) for v in state]
    try:
        yield
    finally:
        for variable, value in zip(state, before, strict=True):
            variable.assign(value)


def _whole(steps: Steps, arrays: Any, numbers: Tensor, most: Any) -> float:
    def run(count: int) -> int:
        return int(steps.train_rows(arrays, numbers, count)[-1])

    return _median(run, int(most))


def _seconds(part: Callable[[Any], Any]) -> float:
    """Seconds of one part, timed many times in one call."""

    @tf.function(autograph=False)
    def repeat(count: Tensor) -> Any:
        def body(step: Any, total: Tensor) -> Any:
            return step + 1, total + tf.cast(part(step), tf.float32)

        start = (tf.constant(0), tf.constant(0.0))
        return tf.while_loop(lambda step, _: step < count, body, start, parallel_iterations=1)

    return _median(lambda count: int(repeat(tf.constant(count))[0]), 100)


def _median(run: Callable[[int], int], most: int) -> float:
    """Seconds a repetition, over as many as take a while."""
    run(1)
    started = time.perf_counter()
    run(1)
    count = max(1, min(most, int(_SECONDS / max(time.perf_counter() - started, 1e-6))))
    seconds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        done = run(count)
        seconds.append((time.perf_counter() - started) / max(done, 1))
    return sorted(seconds)[_ROUNDS // 2]
