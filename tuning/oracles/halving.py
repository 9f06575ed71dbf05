"""Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), on top of any oracle.

A trial is looked at on rungs, after 1, eta, eta^2, ... slices of its budget. It goes on where it is among the best
1 / eta of all that were on that rung so far, and else waits there; one that waits may still be called back when its
score comes to be among the best, because others that came after it did worse.
"""

from collections import defaultdict
from collections.abc import Collection

__all__ = ["SuccessiveHalving"]


class SuccessiveHalving:
    """What was seen on each rung, and who goes on.

    Args:
        slices: of a whole budget.
        direction: `min` or `max`: which scores are better.
        eta: one in so many goes on.

    Attributes:
        rungs: the numbers of slices after which a trial is looked at, before the last.
    """

    def __init__(self, slices: int, direction: str, eta: int = 3) -> None:
        self.rungs = [rung for rung in (eta**k for k in range(slices)) if rung < slices]
        self._sign, self._eta = (1.0 if direction == "min" else -1.0), eta
        self._seen: dict[int, dict[str, float]] = defaultdict(dict)
        self._waiting: dict[str, int] = {}

    def report(self, trial: str, slices: int, score: float | None) -> bool:
        """Notes a trial's score after so many slices; returns whether it goes on.

        Args:
            trial: its id.
            slices: that it has spent.
            score: None for a trial that diverged: worse than any other.
        """
        if slices not in self.rungs:
            return score is not None
        self._seen[slices][trial] = float("inf") if score is None else self._sign * score
        if score is not None and self._is_among_the_best(trial, slices):
            return True
        if score is not None:
            self._waiting[trial] = slices
        return False

    def next_to_call(self, but: Collection[str] = ()) -> str | None:
        """Takes the trial that has waited in vain from those that wait: the best on the highest rung; None for none.

        Args:
            but: trials that cannot go on yet.
        """
        waiting = {trial: rung for trial, rung in self._waiting.items() if trial not in but}
        able = [trial for trial, rung in waiting.items() if self._is_among_the_best(trial, rung)]
        if not able:
            return None
        best = min(able, key=lambda trial: (-self._waiting[trial], self._seen[self._waiting[trial]][trial], trial))
        del self._waiting[best]
        return best

    def call(self, trial: str) -> None:
        """A trial goes on, whoever decided it: it waits no longer."""
        self._waiting.pop(trial, None)

    def _is_among_the_best(self, trial: str, rung: int) -> bool:
        scores = self._seen[rung]
        places = max(1, len(scores) // self._eta)
        return sorted(scores, key=lambda other: (scores[other], other)).index(trial) < places
