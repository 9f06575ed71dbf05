"""Plateau: a rate that falls when a score no longer improves, as a pure function of the scores so far."""

import math
from dataclasses import dataclass

from tfmb.errors import ConfigError

__all__ = ["Plateau"]


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Multiplies the rate by `factor` when a score has not improved for `patience` evaluations: ReduceLROnPlateau.

    It holds no state: `step` takes the state and returns the next one.

    Attributes:
        monitor: the score's name among an epoch's logs.
        mode: `"min"` or `"max"`.
        factor: in (0, 1).
        patience: evaluations without improvement that are borne.
        min_delta: an improvement is more than this.
        cooldown: evaluations after a reduction that do not count.
        min_learning_rate: never below.

    Example:
        >>> plateau = tfmb.optimizers.schedules.Plateau(patience=1)
        >>> state, rate = plateau.start(), 0.1
        >>> for loss in (0.5, 0.6):  # the second is no improvement
        ...     state, rate = plateau.step(state, loss, rate)
        >>> round(rate, 6)
        0.01
    """

    monitor: str = "val_loss"
    mode: str = "min"
    factor: float = 0.1
    patience: int = 10
    min_delta: float = 1e-4
    cooldown: int = 0
    min_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise ConfigError(f"mode={self.mode!r} must be 'min' or 'max'")
        if not 0 < self.factor < 1:
            raise ConfigError(f"factor={self.factor!r} must be in (0, 1)")
        if self.patience < 0 or self.cooldown < 0 or self.min_delta < 0 or self.min_learning_rate < 0:
            raise ConfigError("patience, cooldown, min_delta and min_learning_rate must be at least 0")

    def start(self) -> tuple[float, int, int]:
        """Returns the state before the first evaluation: best score, evaluations without improvement, cooldown left."""
        return (math.inf if self.mode == "min" else -math.inf), 0, 0

    def step(
        self, state: tuple[float, int, int], score: float, learning_rate: float
    ) -> tuple[tuple[float, int, int], float]:
        """Takes in one evaluation.

        Args:
            state: from `start` or the last `step`.
            score: the monitored value.
            learning_rate: the rate so far.

        Returns:
            The next state and the rate from now on.
        """
        best, waited, cooling = state
        if cooling:
            cooling, waited = cooling - 1, 0
        better = score < best - self.min_delta if self.mode == "min" else score > best + self.min_delta
        if better:
            return (score, 0, cooling), learning_rate
        if cooling:
            return (best, waited, cooling), learning_rate
        waited += 1
        if waited < self.patience or learning_rate <= self.min_learning_rate:
            return (best, waited, 0), learning_rate
        return (best, 0, self.cooldown), max(learning_rate * self.factor, self.min_learning_rate)
