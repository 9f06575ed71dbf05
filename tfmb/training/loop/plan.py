"""The length of a training, and the position in it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tfmb.optimizers.schedules import Plateau

__all__ = ["LoopState", "TrainingPlan", "add_up"]


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The length of a training.

    Attributes:
        epochs: the number of the epoch to stop before.
        initial_epoch: the number of the first epoch, counted from 0.
        log_every: updates between two reports of the running loss.
        plateau: lowers the rate when a score stands still, or None.
        steps_a_call: updates in a call of the training function; None for as many as take half a second. Several
            workers must make the same calls: TensorFlow names a collective by its iteration within the call.
        on_divergence: what to do about a loss or gradient that is not finite, whose update is never made: `"skip"` the
            batch, or raise (`"stop"`, and `"restore"`, where the caller goes back to a checkpoint).
    """

    epochs: int
    initial_epoch: int = 0
    log_every: int = 100
    plateau: Plateau | None = None
    steps_a_call: int | None = None
    on_divergence: str = "stop"


@dataclass(frozen=True, kw_only=True)
class LoopState:
    """The position of the loop before it draws a batch. A checkpoint holds it.

    Attributes:
        epoch: from 0.
        step: batches drawn in this epoch.
        drawn: batches drawn in all.
        sums: the sum of the epoch's reports so far; None at its start.
        last_loss: of the last update that was made, or None.
        waiting: the plateau's state.
        skipped: updates that were not made because they were not finite.
        restored: the number of times that the run went back to a checkpoint.
        ended: whether nothing is left to do.
    """

    epoch: int = 0
    step: int = 0
    drawn: int = 0
    sums: tuple[float, ...] | None = None
    last_loss: float | None = None
    waiting: tuple[float, int, int] | None = None
    skipped: int = 0
    restored: int = 0
    ended: bool = False

    @classmethod
    def at_start(cls, plan: TrainingPlan) -> "LoopState":
        """Returns the state before the first batch of a plan."""
        return cls(epoch=plan.initial_epoch, waiting=plan.plateau.start() if plan.plateau else None)

    def after(self, rows: np.ndarray, losses: np.ndarray, drawn: int) -> "LoopState":
        """Returns the state after a call.

        Args:
            rows: `[updates, width]`, the reports of the updates that were made.
            losses: `[updates]`, theirs.
            drawn: the batches of the call; one more than the updates if the last one was left out.
        """
        return replace(
            self,
            step=self.step + drawn,
            drawn=self.drawn + drawn,
            sums=add_up(self.sums, rows),
            last_loss=float(losses[-1]) if len(losses) else self.last_loss,
            skipped=self.skipped + drawn - len(rows),
        )

    def next_epoch(self, waiting: tuple[float, int, int] | None) -> "LoopState":
        """Returns the state before the first batch of the next epoch, with the plateau's new state."""
        return replace(self, epoch=self.epoch + 1, step=0, sums=None, waiting=waiting)


def add_up(sums: Sequence[float] | None, reports: np.ndarray) -> tuple[float, ...] | None:
    """Adds reports `[steps, width]` to a sum one by one, in float64.

    The bits of the sum do not depend on how many reports a call brings.
    """
    total = None if sums is None else np.array(sums)
    for row in reports.astype(np.float64):
        total = row if total is None else total + row
    return None if total is None else tuple(total.tolist())
