"""A loss or gradient that is not finite: the batch is left out, or the training ends."""

from typing import Any

from tfmb.backend import tf
from tfmb.errors import DivergenceError
from tfmb.training.loop.plan import LoopState, TrainingPlan

__all__ = ["Divergence", "rate_of"]

# More updates in a row that are not finite than this do not come of a batch.
_MAX_SKIPPED = 10


class Divergence:
    """Counts the updates in a row that were not finite.

    Args:
        plan: says whether such a batch is skipped.
        optimizer: asked for its rate and count, for the error.
    """

    def __init__(self, plan: TrainingPlan, optimizer: Any) -> None:
        self._skips, self._optimizer, self._in_a_row = plan.on_divergence == "skip", optimizer, 0

    def check(self, finite: bool, losses: Any, state: LoopState, first_update: int) -> None:
        """Checks the losses of a call.

        Args:
            finite: whether the last batch of the call was finite.
            losses: of the updates that were made.
            state: before the call.
            first_update: the number of updates before it.

        Raises:
            DivergenceError: the last batch was not finite, and it is not to be skipped.
        """
        if finite:
            self._in_a_row = 0
            return
        self._in_a_row = 1 if len(losses) else self._in_a_row + 1
        if not self._skips or self._in_a_row > _MAX_SKIPPED:
            last_loss = float(losses[-1]) if len(losses) else state.last_loss
            raise self._error(first_update + len(losses) + 1, last_loss)

    def check_epoch(self, state: LoopState) -> None:
        """Checks an epoch.

        Raises:
            DivergenceError: every one of its batches was skipped.
        """
        if state.sums is None and state.step:
            raise self._error(int(self._optimizer.iterations.numpy()) + 1, state.last_loss)

    def _error(self, update: int, last_loss: float | None) -> DivergenceError:
        rate = rate_of(self._optimizer)
        known = "" if last_loss is None else f" (the loss before it was {last_loss:.6g})"
        return DivergenceError(
            f"update {update} at learning rate {rate:g}: the loss or a gradient is NaN or infinite{known}; "
            "the weights are those before it: try a lower learning rate",
            update=update,
            learning_rate=rate,
            last_loss=last_loss,
        )


def rate_of(optimizer: Any, before: int = 0) -> float:
    """Returns the rate of the next update, or of one `before` it."""
    return float(optimizer.rate_at(tf.maximum(optimizer.iterations - before, 0)))
