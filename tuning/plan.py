"""How a search goes about its trials, whatever they train."""

from dataclasses import dataclass
from typing import Any

from tfmb.choices import check_counts
from tfmb.errors import ConfigError

from .objective import Objective
from .oracles.make import ORACLES

__all__ = ["PRUNING_SLICES", "SearchPlan"]

# Looks at a trial where others may stop it: rungs after 1/9 and 1/3 of its budget.
PRUNING_SLICES = 9


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """How a search goes about its trials; see `tune` for what is not said here.

    Attributes:
        objective: its text.
        oracle: one of `ORACLES`.
        max_trials: the largest number of trials.
        pruning: whether trials that do worse than others are stopped early.
        timeout: seconds after which no trial begins any more; None for no limit.
        executor: what the user gave; None for this machine.
        workers: the number of trials at the same time; None for the executor's own number.
        round_size: the number of trials that are chosen before any of them is heard; None for no rounds.
        max_failures: the number of failed trials in a row that ends the search.
        overwrite: whether a search that is in the directory is removed.
        any_seed: whether a search that goes on keeps its own seed, in place of the task's.

    Raises:
        ConfigError: a value that makes no sense.
    """

    objective: str = "val_loss"
    oracle: str = "bayesian"
    max_trials: int = 10
    pruning: bool = False
    timeout: float | None = None
    executor: Any = None
    workers: int | None = None
    round_size: int | None = None
    max_failures: int = 3
    overwrite: bool = False
    any_seed: bool = False

    def __post_init__(self) -> None:
        Objective.parse(self.objective)
        check_counts(max_trials=self.max_trials, max_failures=self.max_failures)
        check_counts(optional=True, workers=self.workers, round_size=self.round_size)
        if self.oracle not in ORACLES:
            raise ConfigError(f"unknown oracle {self.oracle!r}: give {', '.join(ORACLES)}")
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigError(f"timeout={self.timeout!r} must be more than 0 seconds")
        if self.pruning and self.oracle == "hyperband":
            raise ConfigError("oracle='hyperband' prunes by itself: leave pruning out")

    @property
    def is_here(self) -> bool:
        """Whether the trials run in this process."""
        return self.executor is None and self.workers in (None, 1)

    @property
    def slices(self) -> int:
        """The number of equal parts of a trial's budget, after each of which it is looked at."""
        return PRUNING_SLICES if self.pruning or self.oracle == "hyperband" else 1
