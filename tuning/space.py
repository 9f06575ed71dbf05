"""The space that is searched: what our loop takes, and what the user's `build(hp)` adds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tfmb.choices import OPTIMIZER_OPTIONS, SCHEDULE_NAMES
from tfmb.data.augment import Augmentation
from tfmb.errors import ConfigError
from tfmb.optimizers import Optimizer, interop, schedules

from .budget import Budget
from .exploration import explore
from .hyper_fit import passed_to_fit
from .quiet import keras_tuner

__all__ = ["LOOP_NAMES", "RULE_NAMES", "Space", "discover", "hyperparameters"]

# What our loop takes of a trial's values; everything else is the user's own.
RULE_NAMES = ("learning_rate", "optimizer", "momentum", "beta_1", "beta_2", "rho", "weight_decay", "schedule", "warmup")
LOOP_NAMES = ("batch_size", "epochs", "augment", *RULE_NAMES)


def hyperparameters() -> Any:
    """A new `keras_tuner.HyperParameters`."""
    return keras_tuner.HyperParameters()


@dataclass(frozen=True, kw_only=True)
class Space:
    """What of our loop is searched. A pair of numbers is a range, a list or one value are choices.

    Attributes:
        batch_size: examples an update. A range is searched in powers of two.
        epochs: passes over the data; None for the budget of the search.
        learning_rate: a range is searched on a logarithmic scale. With `rate_scaling` it is the rate at
            `base_batch_size`, and each trial's own follows from its batch: the two are then searched independently.
        optimizer: one of `sgd`, `momentum`, `rmsprop`, `adam`, `adamw`, or several of them.
        momentum: of SGD and RMSprop; None for their defaults, as for all that follow.
        beta_1: Adam's.
        beta_2: Adam's.
        rho: RMSprop's.
        weight_decay: decoupled; a range is searched on a logarithmic scale.
        schedule: how the rate goes on over a trial: one of `tfmb train`'s, or several.
        warmup: updates in which the rate rises first.
        augment: `""` for none, or text as `Augmentation.parse` reads it (`shift=2,rotate=10`), or several of them.
        rate_scaling: `linear`, `sqrt` or None.
        base_batch_size: the batch size at which `learning_rate` is meant, where it is scaled.

    Raises:
        ConfigError: a value that makes no sense.
    """

    batch_size: Any = (16, 1024)
    epochs: Any = None
    learning_rate: Any = (1e-4, 1e-1)
    optimizer: Any = "adam"
    momentum: Any = None
    beta_1: Any = None
    beta_2: Any = None
    rho: Any = None
    weight_decay: Any = None
    schedule: Any = "constant"
    warmup: Any = 0
    augment: Any = ""
    rate_scaling: str | None = None
    base_batch_size: int = 64
    _given: dict[str, list[Any] | tuple[float, float]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.rate_scaling not in (None, "linear", "sqrt"):
            raise ConfigError(f"rate_scaling={self.rate_scaling!r}: give linear, sqrt or None")
        for name in LOOP_NAMES:
            value = getattr(self, name)
            if value is not None:
                self._given[name] = _choices(name, value)
        for name, given in self._given.items():
            _check_known(name, given)
        for name in ("momentum", "beta_1", "beta_2", "rho"):
            takers = [rule for rule, options in OPTIMIZER_OPTIONS.items() if name in options]
            if name in self._given and not set(takers) & set(self._given["optimizer"]):
                rules = ", ".join(map(str, self._given["optimizer"]))
                raise ConfigError(f"{name} is no option of {rules}, but of {', '.join(takers)}: leave it out")
        if self.rate_scaling is None and self.base_batch_size != 64:
            raise ConfigError(
                "base_batch_size is used with rate_scaling alone: give rate_scaling too, or leave base_batch_size out"
            )

    def declare(self, hp: Any, but: Sequence[str] = ()) -> None:
        """Adds our hyper-parameters to a `keras_tuner.HyperParameters`, but for those that are there or in `but`."""
        there = {entry.name for entry in hp.space} | {*but}
        for name, given in self._given.items():
            if name in there:
                continue
            if isinstance(given, list):
                if len(given) == 1:
                    hp.Fixed(name, given[0])
                else:
                    hp.Choice(name, given)
            elif name == "batch_size":
                hp.Int(name, int(given[0]), int(given[1]), step=2, sampling="log", default=_middle_power(*given))
            elif name in ("learning_rate", "weight_decay"):
                middle = math.sqrt(given[0] * given[1])
                hp.Float(name, *given, sampling="log", default=float(f"{middle:.3g}"))
            elif name == "warmup" or (name == "epochs" and all(isinstance(end, int) for end in given)):
                hp.Int(name, int(given[0]), int(given[1]))
            else:
                hp.Float(name, *given)

    def augmentation(self, values: dict[str, Any]) -> Augmentation | None:
        """What a trial's images go through."""
        text = str(values.get("augment", ""))
        return Augmentation.parse(text) if text else None

    def budget(self, values: dict[str, Any], budget: Budget) -> Budget:
        """The budget of a trial."""
        return replace(budget, amount=float(values["epochs"]), unit="epochs") if "epochs" in values else budget

    def rate(self, values: dict[str, Any]) -> float:
        """The learning rate of a trial's updates."""
        rate = float(values["learning_rate"])
        if self.rate_scaling is None:
            return rate
        return float(schedules.scale_rate(rate, int(values["batch_size"]), self.base_batch_size, self.rate_scaling))

    def make_optimizer(self, values: dict[str, Any], updates: int, an_epoch: int) -> Optimizer:
        """The optimizer of a trial that makes so many updates, so many of them an epoch.

        Raises:
            ConfigError: a warm-up as long as the trial.
        """
        name = str(values.get("optimizer", "adam"))
        options = ("momentum", "rho", "beta_1", "beta_2")
        given = {key: values[key] for key in options if key in values and key in OPTIMIZER_OPTIONS[name]}
        if "weight_decay" in values:
            given["weight_decay"] = values["weight_decay"]
        warmup = int(values.get("warmup", 0))
        if warmup >= updates:
            raise ConfigError(f"warmup={warmup} is as long as a trial ({updates} updates): give less")
        rate: Any = schedules.over_run(
            str(values.get("schedule", "constant")), self.rate(values), updates - warmup, an_epoch
        )
        if warmup:
            rate = schedules.Warmup(schedules.Constant(rate) if isinstance(rate, float) else rate, warmup)
        found: Optimizer = interop.OPTIMIZERS[name](learning_rate=rate, **given)
        return found


def discover(build: Callable[[Any], Any], space: Space) -> tuple[Any, Any]:
    """Finds what a user's `build(hp)` searches, and adds what our loop does.

    Returns:
        `(hp, model)`: the whole space as `keras_tuner.HyperParameters`, and the model built with its defaults.

    Raises:
        ConfigError: `build` returns no Keras model, or asks for a name of our loop's with values that it does not know.
    """
    hp, model = explore(build)
    compiled = getattr(model, "optimizer", None) is not None
    for entry in hp.space:
        if entry.name in LOOP_NAMES and not (compiled and entry.name in RULE_NAMES):
            _check_entry(entry)
    passed = () if model is None else passed_to_fit(model)
    space.declare(hp, (*(RULE_NAMES if compiled else ()), *passed))
    return hp, model


def _check_entry(entry: Any) -> None:
    """Refuses a name of our loop's in `build(hp)` that means something else there."""
    name = entry.name
    ends = (getattr(entry, "min_value", None), getattr(entry, "max_value", None))
    values = [entry.value] if type(entry).__name__ == "Fixed" else ends if None not in ends else list(entry.values)
    try:
        if ends[0] == ends[1] and None not in ends:
            values = [ends[0]]
        _check_known(name, _choices(name, values))
    except ConfigError as error:
        raise ConfigError(
            f"build(hp) asks for {name}, a name of the search's own: {error}; or name it otherwise"
        ) from error


def _check_known(name: str, values: list[Any] | tuple[float, float]) -> None:
    known = {"optimizer": tuple(OPTIMIZER_OPTIONS), "schedule": SCHEDULE_NAMES}.get(name, ())
    for value in values:
        if known and value not in known:
            raise ConfigError(f"unknown {name} {value!r}: give {', '.join(known)}")
    if name == "augment":
        for text in filter(None, map(str, values)):
            Augmentation.parse(text)
    if name == "schedule" and "plateau" in values:
        raise ConfigError(
            "schedule 'plateau' depends on how often a trial is validated: give another schedule in a search"
        )


def _choices(name: str, value: Any) -> list[Any] | tuple[float, float]:
    """A list of values, or the two ends of a range."""
    if isinstance(value, tuple) and len(value) == 2 and all(_is_number(v) for v in value):
        low, high = value
        if not 0 <= low < high < math.inf or (name in ("learning_rate", "weight_decay", "batch_size") and low <= 0):
            raise ConfigError(f"{name}={value!r}: a range goes from a smaller number up to a larger one, both above 0")
        if name == "batch_size" and (int(low) != low or int(high) != high):
            raise ConfigError(f"batch_size={value!r}: give whole numbers")
        return low, high
    found = list(value) if isinstance(value, (list, tuple)) else [value]
    if not found:
        raise ConfigError(f"{name}={value!r} is empty: give a value, a list of values, or a range (low, high)")
    if name == "augment" and not all(isinstance(one, str) for one in found):
        raise ConfigError(f"augment={value!r}: give text such as 'shift=2', or '' for none")
    if name not in ("optimizer", "schedule", "augment"):
        for one in found:
            least = 1 if name == "batch_size" else 0
            whole = name not in ("batch_size", "warmup") or (_is_number(one) and int(one) == one)
            if not _is_number(one) or not least <= one < math.inf or not whole:
                raise ConfigError(
                    f"{name}={one!r} must be {'an integer' if not whole else 'a number'} above {least - 1}"
                )
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _middle_power(low: float, high: float) -> int:
    """A value of the range that is searched, about in its middle."""
    steps = int(math.log2(high / low))
    return int(low) << (steps // 2)
