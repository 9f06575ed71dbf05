"""The number of updates of the next call, and the batches that callbacks see."""

import math
from typing import Any

from tfmb.training.loop.hooks import Hooks
from tfmb.training.loop.plan import LoopState, TrainingPlan

__all__ = ["BatchLooks", "CallSize"]

# A call lasts about this long at most, so that signals and progress are served in time.
_CALL_SECONDS = 0.5
_MAX_STEPS = 100


class CallSize:
    """Chooses the number of updates of each call.

    Args:
        plan: of the training.
        hooks: a checkpoint or a look of a callback ends a call.
    """

    def __init__(self, plan: TrainingPlan, hooks: Hooks) -> None:
        self._plan, self._hooks = plan, hooks
        self._steps, self._calls = plan.steps_a_call or 1, 0

    def next(self, state: LoopState, steps: int | None, until_look: int) -> int:
        """The number of updates of the next call.

        Args:
            state: before it.
            steps: of the epoch; None if that is not known: the batches are then drawn one by one.
            until_look: batches until a callback must see one.
        """
        every = self._plan.log_every
        may = self._hooks.checkpoints.most(state) or self._steps
        count = min(self._steps, every - state.step % every, may)
        count = 1 if steps is None else min(count, steps - state.step)
        if not self._hooks.callbacks.each_batch:
            return count
        return min(until_look, count if steps is None else steps - state.step)

    def took(self, seconds: float, steps: int) -> None:
        """Learns from a call; not from the first one of all, which traces and compiles."""
        self._calls += 1
        if self._calls > 1 and self._plan.steps_a_call is None:
            fitting = math.floor(_CALL_SECONDS / max(seconds / steps, 1e-6))
            self._steps = max(1, min(_MAX_STEPS, fitting))


class BatchLooks:
    """Shows batches to callbacks that must see them, once in `steps_between_looks`, within one epoch.

    Args:
        callbacks: who looks.
        logs: the sum of reports -> Keras's logs.
    """

    def __init__(self, callbacks: Any, logs: Any) -> None:
        self._callbacks, self._logs, self._shown = callbacks, logs, 0

    @property
    def until_next(self) -> int:
        """Batches until the next look."""
        return int(self._callbacks.steps_between_looks) - self._shown

    def before(self, state: LoopState) -> None:
        """Calls the callbacks before a call."""
        if self._callbacks.each_batch and not self._shown:
            self._callbacks.call("on_train_batch_begin", state.step)

    def after(self, state: LoopState, drawn: int) -> None:
        """Calls the callbacks after a call that drew `drawn` batches."""
        self._shown = (self._shown + drawn) % self._callbacks.steps_between_looks
        if self._callbacks.each_batch and not self._shown and state.sums is not None:
            self._callbacks.call("on_train_batch_end", state.step - 1, self._logs(state))

    def end(self, state: LoopState) -> None:
        """Ends an epoch after its last call: Keras names the last batch that there might have been."""
        if self._callbacks.each_batch and self._shown and state.sums is not None:
            self._callbacks.call("on_train_batch_end", state.step + self.until_next - 1, self._logs(state))
