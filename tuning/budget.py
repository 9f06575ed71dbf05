"""How much a trial may spend: the same number of examples, updates or seconds for all, in equal slices."""

import math
from dataclasses import dataclass

from tfmb.choices import check_counts
from tfmb.errors import ConfigError

__all__ = ["Budget"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a trial may spend; it is evaluated after each of the equal slices.

    Attributes:
        amount: how much.
        unit: `epochs`, `examples`, `updates` or `seconds` (of training, without evaluation and tracing).
        slices: how many looks at a trial, at least 1.

    Raises:
        ConfigError: a value that makes no sense.
    """

    amount: float
    unit: str = "epochs"
    slices: int = 1

    def __post_init__(self) -> None:
        if self.unit not in ("epochs", "examples", "updates", "seconds"):
            raise ConfigError(f"budget unit {self.unit!r}: give epochs, examples, updates or seconds")
        if not self.amount > 0 or not math.isfinite(self.amount):
            raise ConfigError(f"a budget of {self.amount!r} {self.unit} must be more than 0")
        check_counts(slices=self.slices)

    def updates(self, slice_number: int, examples: int, batch_size: int) -> int:
        """Updates made after so many slices, at least one a slice; of a budget in seconds, no limit that is reached.

        Args:
            slice_number: from 0 to `slices`.
            examples: of a pass over the data.
            batch_size: examples an update.
        """
        an_epoch = math.ceil(examples / batch_size)
        share = slice_number / self.slices
        whole = {
            "epochs": self.amount * an_epoch,
            "examples": self.amount / examples * an_epoch,
            "updates": self.amount,
            "seconds": 2.0**40,
        }[self.unit]
        return max(round(whole * share), slice_number)

    def seconds(self, slice_number: int) -> float | None:
        """Seconds of training after so many slices; None where seconds are no limit."""
        return self.amount * slice_number / self.slices if self.unit == "seconds" else None
