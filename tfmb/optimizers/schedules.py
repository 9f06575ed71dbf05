"""Learning-rate schedules: pure functions of the number of updates made so far.

Each is a frozen value; called with an int64 scalar (a tensor or an int) it returns the rate of the next update as a
float64 scalar tensor. Keras's schedule objects can stand in any place of theirs.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from tfmb.backend import tf
from tfmb.errors import ConfigError
from tfmb.optimizers.plateau import Plateau
from tfmb.types import Tensor

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "MultiStep",
    "OneCycle",
    "Plateau",
    "Polynomial",
    "Schedule",
    "Step",
    "Warmup",
    "from_config",
    "over_run",
    "scale_rate",
]


@dataclass(frozen=True)
class Schedule:
    """The base class. A subclass is a frozen dataclass whose `rate(count)` is its equation (`count` a float64 scalar).

    In the equations t is the number of updates made so far and alpha the first rate. `over`, `every` and `milestones`
    count updates, not epochs.

    Raises:
        ConfigError: a rate below 0 or not finite, or a number of updates below 1.

    Example:
        >>> float(tfmb.optimizers.schedules.Step(0.1, every=100)(100))  # the rate after 100 updates
        0.01...
    """

    def rate(self, count: Tensor) -> Any:
        """The rate after `count` updates."""
        raise NotImplementedError(f"{type(self).__name__} must define rate()")

    def __call__(self, updates: Tensor) -> Any:
        """The rate of the next update, a float64 scalar tensor."""
        return tf.cast(self.rate(tf.cast(updates, tf.float64)), tf.float64)

    def get_config(self) -> dict[str, Any]:
        """The class and its arguments, as JSON can hold them: see `from_config`."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"class": type(self).__name__, **{key: _plain(value) for key, value in values.items()}}


@dataclass(frozen=True)
class Constant(Schedule):
    """Always the same rate.

    Example:
        >>> float(tfmb.optimizers.schedules.Constant(0.1)(1000))
        0.1
    """

    learning_rate: float

    def __post_init__(self) -> None:
        _check_rates(self, "learning_rate")

    def rate(self, count: Tensor) -> Any:
        """alpha."""
        return self.learning_rate + 0.0 * count


@dataclass(frozen=True)
class Step(Schedule):
    """alpha gamma^floor(t / every): StepLR.

    Example:
        >>> [round(float(tfmb.optimizers.schedules.Step(0.1, every=100)(t)), 6) for t in (0, 99, 100, 250)]
        [0.1, 0.1, 0.01, 0.001]
    """

    learning_rate: float
    every: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _check_rates(self, "learning_rate", "gamma")
        _check_counts(self, "every")

    def rate(self, count: Tensor) -> Any:
        """See the class."""
        return self.learning_rate * tf.pow(tf.constant(self.gamma, tf.float64), tf.floor(count / self.every))


@dataclass(frozen=True)
class MultiStep(Schedule):
    """alpha gamma^(number of milestones reached).

    Example:
        >>> schedule = tfmb.optimizers.schedules.MultiStep(0.1, milestones=(100, 150))
        >>> [round(float(schedule(t)), 6) for t in (99, 100, 150)]
        [0.1, 0.01, 0.001]
    """

    learning_rate: float
    milestones: tuple[int, ...]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        _check_rates(self, "learning_rate", "gamma")
        if not self.milestones or list(self.milestones) != sorted(set(self.milestones)) or self.milestones[0] < 1:
            raise ConfigError(f"milestones={self.milestones!r} must be update counts of at least 1 that go up")

    def rate(self, count: Tensor) -> Any:
        """See the class."""
        reached = tf.reduce_sum(tf.cast(count >= tf.constant(self.milestones, tf.float64), tf.float64))
        return self.learning_rate * tf.pow(tf.constant(self.gamma, tf.float64), reached)


@dataclass(frozen=True)
class Exponential(Schedule):
    """alpha gamma^(t / over): the rate falls by gamma each `over` updates, smoothly.

    Example:
        >>> round(float(tfmb.optimizers.schedules.Exponential(0.1, over=100, gamma=0.5)(200)), 6)
        0.025
    """

    learning_rate: float
    over: int
    gamma: float

    def __post_init__(self) -> None:
        _check_rates(self, "learning_rate", "gamma")
        _check_counts(self, "over")

    def rate(self, count: Tensor) -> Any:
        """See the class."""
        return self.learning_rate * tf.pow(tf.constant(self.gamma, tf.float64), count / self.over)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """end + (alpha - end) (1 - t / over)^power, then `end_learning_rate`.

    Example:
        >>> round(float(tfmb.optimizers.schedules.Polynomial(0.1, over=100)(25)), 6)
        0.075
    """

    learning_rate: float
    over: int
    end_learning_rate: float = 0.0
    power: float = 1.0

    def __post_init__(self) -> None:
        _check_rates(self, "learning_rate", "end_learning_rate", "power")
        _check_counts(self, "over")

    def rate(self, count: Tensor) -> Any:
        """See the class."""
        left = 1.0 - tf.minimum(count / self.over, 1.0)
        return self.end_learning_rate + (self.learning_rate - self.end_learning_rate) * tf.pow(left, self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    """end + (alpha - end) (1 + cos(pi t / over)) / 2, then `end_learning_rate` (Loshchilov and Hutter 2017).

    Example:
        >>> [round(float(tfmb.optimizers.schedules.Cosine(0.1, over=100)(t)), 6) for t in (0, 50, 100)]
        [0.1, 0.05, 0.0]
    """

    learning_rate: float
    over: int
    end_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        _check_rates(self, "learning_rate", "end_learning_rate")
        _check_counts(self, "over")

    def rate(self, count: Tensor) -> Any:
        """See the class."""
        half_wave = 0.5 * (1.0 + tf.cos(math.pi * tf.minimum(count / self.over, 1.0)))
        return self.end_learning_rate + (self.learning_rate - self.end_learning_rate) * half_wave


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from peak / start_factor to the peak, then down to peak / end_factor, in half cosines (Smith 2018).

    Attributes:
        learning_rate: the peak.
        over: the number of updates of the whole cycle.
        rise: the share of these updates in which the rate rises, in (0, 1).
        start_factor: the peak divided by the first rate.
        end_factor: the peak divided by the last rate.

    Example:
        >>> schedule = tfmb.optimizers.schedules.OneCycle(0.1, over=100)
        >>> [round(float(schedule(t)), 6) for t in (0, 30, 100)]
        [0.004, 0.1, 1e-05]
    """

    learning_rate: float
    over: int
    rise: float = 0.3
    start_factor: float = 25.0
    end_factor: float = 1e4

    def __post_init__(self) -> None:
        _check_rates(self, "learning_rate")
        _check_counts(self, "over")
        if not 0 < self.rise < 1:
            raise ConfigError(f"rise={self.rise!r} must be in (0, 1)")
        if self.start_factor < 1 or self.end_factor < 1:
            raise ConfigError("start_factor and end_factor must be at least 1")

    def rate(self, count: Tensor) -> Any:
        """See the class."""
        top = self.rise * self.over
        first, last = self.learning_rate / self.start_factor, self.learning_rate / self.end_factor
        up = _half_cosine(first, self.learning_rate, count / top)
        down = _half_cosine(self.learning_rate, last, tf.minimum((count - top) / (self.over - top), 1.0))
        return tf.where(count < top, up, down)


@dataclass(frozen=True)
class Warmup(Schedule):
    """Rises linearly from `start_factor` times the schedule's first rate to that rate. Then the schedule follows.

    Attributes:
        schedule: one of these schedules, or a Keras schedule.
        updates: the number of updates of the rise. Update number `updates` (from 0) has the schedule's first rate.
        start_factor: the share of the schedule's first rate to start at, in [0, 1].

    Example:
        >>> schedule = tfmb.optimizers.schedules.Warmup(tfmb.optimizers.schedules.Cosine(0.1, over=100), updates=10)
        >>> [round(float(schedule(t)), 6) for t in (0, 5, 10)]
        [0.0, 0.05, 0.1]
    """

    schedule: Any
    updates: int
    start_factor: float = 0.0

    def __post_init__(self) -> None:
        _check_counts(self, "updates")
        if not callable(self.schedule):
            raise ConfigError(f"schedule={self.schedule!r} is no schedule: give one, such as Constant(0.1)")
        if not 0 <= self.start_factor <= 1:
            raise ConfigError(f"start_factor={self.start_factor!r} must be in [0, 1]")

    def rate(self, count: Tensor) -> Any:
        """See the class."""
        later = tf.cast(self.schedule(tf.cast(tf.maximum(count - self.updates, 0.0), tf.int64)), tf.float64)
        share = tf.minimum(count / self.updates, 1.0)
        return later * (self.start_factor + (1.0 - self.start_factor) * share)


def scale_rate(learning_rate: float, batch_size: int, base_batch_size: int, rule: str = "linear") -> float:
    """The rate for another batch size.

    Args:
        learning_rate: the rate that suits `base_batch_size`.
        batch_size: the new batch size.
        base_batch_size: the old batch size.
        rule: `"linear"` (Goyal et al. 2017, for SGD), alpha B / B0; `"sqrt"` (for Adam and the like),
            alpha sqrt(B / B0); or `"none"`.

    Raises:
        ConfigError: another rule, or a size below 1.

    Example:
        >>> tfmb.optimizers.schedules.scale_rate(0.1, batch_size=256, base_batch_size=64)
        0.4
    """
    if batch_size < 1 or base_batch_size < 1:
        raise ConfigError(f"batch sizes {batch_size!r} and {base_batch_size!r} must be at least 1")
    ratio = batch_size / base_batch_size
    if rule not in ("none", "linear", "sqrt"):
        raise ConfigError(f"rule={rule!r} must be 'linear', 'sqrt' or 'none'")
    return learning_rate * {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[rule]


def over_run(name: str, learning_rate: float, updates: int, updates_an_epoch: int) -> Any:
    """The schedule of a run, by its name on the command line.

    Args:
        name: `"constant"` and `"plateau"` (the rate itself), `"step"` (a tenth after each third of the run),
            `"exponential"` (0.95 an epoch), `"polynomial"` (linear to 0), `"cosine"` (to 0) or `"one-cycle"`
            (`learning_rate` is the peak).
        learning_rate: the first rate, or the peak.
        updates: the number of updates of the run, without a warm-up.
        updates_an_epoch: the number of updates of an epoch.

    Returns:
        A float or a `Schedule`.

    Raises:
        ConfigError: there is no such schedule.

    Example:
        >>> tfmb.optimizers.schedules.over_run("step", 0.1, updates=300, updates_an_epoch=30)
        Step(learning_rate=0.1, every=100, gamma=0.1)
    """
    if name in ("constant", "plateau"):
        return learning_rate
    if name == "step":
        return Step(learning_rate, max(math.ceil(updates / 3), 1))
    if name == "exponential":
        return Exponential(learning_rate, updates_an_epoch, 0.95)
    if name == "polynomial":
        return Polynomial(learning_rate, updates)
    if name == "cosine":
        return Cosine(learning_rate, updates)
    if name == "one-cycle":
        return OneCycle(learning_rate, updates)
    raise ConfigError(f"unknown schedule {name!r}")


_CLASSES = {cls.__name__: cls for cls in (Constant, Step, MultiStep, Exponential, Polynomial, Cosine, OneCycle, Warmup)}


def from_config(config: dict[str, Any]) -> Schedule:
    """The schedule that `get_config` described.

    Args:
        config: `class` and the arguments by name.

    Raises:
        ConfigError: the configuration is not one of our schedules.

    Example:
        >>> schedule = tfmb.optimizers.schedules.Step(0.1, every=100)
        >>> tfmb.optimizers.schedules.from_config(schedule.get_config()) == schedule
        True
    """
    arguments = dict(config)
    name = arguments.pop("class", None)
    if name not in _CLASSES:
        raise ConfigError(f"unknown schedule {name!r}: give one of {', '.join(_CLASSES)}")
    if isinstance(arguments.get("schedule"), dict):
        arguments["schedule"] = from_config(arguments["schedule"])
    try:
        return _CLASSES[name](**arguments)
    except TypeError as error:
        raise ConfigError(f"schedule {name}: {error}") from error


def _plain(value: Any) -> Any:
    """A value as JSON can hold it; a schedule of Keras by its class and configuration, which `from_config` refuses."""
    if isinstance(value, Schedule):
        return value.get_config()
    if hasattr(value, "get_config"):
        return {"keras_class": type(value).__name__, **value.get_config()}
    return value


def _half_cosine(start: float, end: float, share: Any) -> Any:
    return end + (start - end) * 0.5 * (1.0 + tf.cos(math.pi * share))


def _check_rates(schedule: Any, *names: str) -> None:
    for name in names:
        value = getattr(schedule, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ConfigError(f"{name}={value!r} must be a number of at least 0")


def _check_counts(schedule: Any, *names: str) -> None:
    for name in names:
        value = getattr(schedule, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}={value!r} must be a number of updates of at least 1")
