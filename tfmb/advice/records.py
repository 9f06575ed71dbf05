"""The parts of an advice as plain values: measurements, conclusions and cost."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfmb.advice.batch_curve import BatchCurve, Interval
from tfmb.advice.rate_curve import RateCurve
from tfmb.advice.rate_search import RateTransfer
from tfmb.advice.short_runs import ShortRun
from tfmb.advice.target import Target
from tfmb.advice.throughput import Throughput

__all__ = ["Advice", "SizePrediction", "listed"]


@dataclass(frozen=True, kw_only=True)
class SizePrediction:
    """The predicted cost of one batch size up to the target.

    Attributes:
        batch_size: examples an update.
        learning_rate: the rate for it.
        updates: to the target.
        step_seconds: of an update, measured.
        seconds: of training to the target.
        examples: trained on until then.
    """

    batch_size: int
    learning_rate: float
    updates: Interval
    step_seconds: float
    seconds: Interval
    examples: Interval

    def record(self) -> dict[str, Any]:
        """Returns the fields for JSON."""
        return {
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            **_told("updates", self.updates),
            **_told("seconds", self.seconds),
        }


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The batch size and the rate to use, or the reason why they are undetermined.

    Attributes:
        name: of the model and data, for people.
        optimizer: its name.
        target: the value to reach; None if none was found.
        target_is_ours: whether it was chosen here.
        batch_size: for the least time; None if it is undetermined.
        learning_rate: for it.
        as_good: the batch sizes, rising, whose time may well be the least, the answer among them; where others on the
            machine keep it undetermined, those it is between.
        least_compute: the batch size that takes the fewest examples, and its rate; None if it is undetermined.
        reason: for the answer, or why there is none.
        curve: updates to the target over the batch size.
        transfer: the rate over the batch size.
        predictions: for all batch sizes that were asked about.
        throughput: seconds of an update over the batch size.
        sweep: the range test that it began with.
        runs: all short trainings.
        confirmed: the training of the answer.
        extras: sentences on accumulation and a second device.
        cost_seconds: the seconds spent on the advice.
        cost_examples: trained on for that.
    """

    name: str
    optimizer: str
    target: Target | None
    target_is_ours: bool
    batch_size: int | None = None
    learning_rate: float | None = None
    as_good: tuple[int, ...] = ()
    least_compute: tuple[int, float] | None = None
    reason: str
    curve: BatchCurve | None
    transfer: RateTransfer | None
    predictions: tuple[SizePrediction, ...] = ()
    throughput: Throughput | None
    sweep: RateCurve | None
    runs: tuple[ShortRun, ...]
    confirmed: ShortRun | None
    extras: tuple[str, ...] = ()
    cost_seconds: float
    cost_examples: int

    def rate_for(self, batch_size: int) -> float | None:
        """Returns the learning rate for any batch size; None if it is undetermined."""
        known = next((p.learning_rate for p in self.predictions if p.batch_size == batch_size), None)
        if known is not None:
            return known
        return None if self.transfer is None else self.transfer.rate(batch_size)

    @property
    def chosen(self) -> SizePrediction | None:
        """The prediction for the answer."""
        return next((p for p in self.predictions if p.batch_size == self.batch_size), None)

    def figure(self, chart: str = "seconds") -> Any:
        """Returns one of the advice's charts, as a Plotly figure, which a notebook shows.

        Args:
            chart: `"seconds"` or `"updates"` to the target, `"rates"` or `"throughput"`, each over the batch size; or
                `"range-test"`.

        Raises:
            ConfigError: Plotly is not installed, there is no such chart, or nothing to draw in it.
        """
        from tfmb.advice.pages import figure_of  # which imports this module

        return figure_of(self, chart)

    def record(self) -> dict[str, Any]:
        """Returns the fields for JSON: one flat answer, with None for undetermined ones."""
        chosen, curve = self.chosen, self.curve
        return {
            "target": None if self.target is None else str(self.target),
            "target_chosen": self.target_is_ours,
            "batch_size": self.batch_size,
            "batch_size_interval": self._neighbours(),
            "as_good_batch_sizes": list(self.as_good),
            "learning_rate": self.learning_rate,
            "learning_rate_interval": self._rates(),
            **_told("critical_batch_size", None if curve is None else curve.critical_batch_size),
            **_told("updates", None if chosen is None else chosen.updates),
            **_told("seconds", None if chosen is None else chosen.seconds),
            "measured_seconds": None if self.confirmed is None else self.confirmed.seconds,
            "least_compute_batch_size": None if self.least_compute is None else self.least_compute[0],
            "least_compute_learning_rate": None if self.least_compute is None else self.least_compute[1],
            "predictions": [prediction.record() for prediction in self.predictions],
            "reason": self.reason,
            "optimizer": self.optimizer,
            "cost_seconds": round(self.cost_seconds, 2),
            "cost_examples": self.cost_examples,
        }

    def _neighbours(self) -> list[int] | None:
        """The smallest and largest batch size around the answer between which all are as good: none is slower."""
        if self.batch_size is None:
            return None
        sizes = [p.batch_size for p in self.predictions]
        place = sizes.index(self.batch_size)
        as_good = self.as_good.__contains__
        return [
            [self.batch_size, *itertools.takewhile(as_good, around)][-1]
            for around in (reversed(sizes[:place]), sizes[place + 1 :])
        ]

    @property
    def answer(self) -> str:
        """`batch size 64 (it may as well be 32 or 128), learning rate 0.01`; empty if it is undetermined."""
        if self.batch_size is None:
            return ""
        others = listed([size for size in self.as_good if size != self.batch_size])
        also = f" (it may as well be {others})" if others else ""
        return f"batch size {self.batch_size}{also}, learning rate {self.learning_rate:.3g}"

    def _rates(self) -> list[float] | None:
        """Rates were tried in steps of two: the best one is not a step away from that which was best."""
        return None if self.learning_rate is None else [self.learning_rate / 2, self.learning_rate * 2]


def _told(name: str, interval: Interval | None) -> dict[str, Any]:
    """A value and its interval, as JSON names them."""
    both = (None, None) if interval is None else (interval.value, interval.to_list())
    return dict(zip((name, f"{name}_interval"), both, strict=True))


def listed(sizes: Sequence[int]) -> str:
    """Returns the sizes in words: `32, 64 or 128`."""
    *most, last = [str(size) for size in sizes] or [""]
    return f"{', '.join(most)} or {last}" if most else last
