"""Hyper-parameters: looked at when they are given, and described for records."""

import contextlib
import math
from typing import Any, TypedDict

import numpy as np

from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.optimizers.schedules import Schedule
from tfmb.types import Tensor

__all__ = ["AROUND", "BY_KERAS", "Common", "check_number", "check_positive", "describe_rate"]

# The arguments that every optimizer takes besides its own: what it does around its rule, and what Keras does for it.
AROUND = (
    *("weight_decay", "clipnorm", "clipvalue", "global_clipnorm"),
    *("use_ema", "ema_momentum", "ema_overwrite_frequency"),
)
BY_KERAS = ("loss_scale_factor", "gradient_accumulation_steps")


class Common(TypedDict, total=False):
    """The arguments that every optimizer takes besides its own, by keyword: see `Optimizer`."""

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None


def describe_rate(rate: Tensor) -> Any:
    """A rate as JSON can hold it, the same in every process: a number, a schedule's configuration, or a name."""
    if isinstance(rate, float):
        return rate
    if isinstance(rate, Schedule):
        return rate.get_config()
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        with contextlib.suppress(NotImplementedError):  # Keras's own word where a user's class has no get_config
            return {"keras_class": type(rate).__name__, **_as_json(rate.get_config())}
    return getattr(rate, "__qualname__", type(rate).__qualname__)


def _as_json(value: Any) -> Any:
    """Returns configurations and arrays in plain values; of anything else the name of its kind."""
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(inner) for inner in value]
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return describe_rate(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    array = np.asarray(value)
    return array.tolist() if array.dtype.kind in "biufU" else type(value).__qualname__


def check_positive(value: Any, name: str) -> float:
    """`value` as a finite float above 0; else a `ConfigError` that names it."""
    number = check_number(value, name, low=0.0)
    if not number:
        raise ConfigError(f"{name}={value!r} must be above 0: leave it out for none")
    return number


def check_number(
    value: Any, name: str, low: float = -math.inf, high: float = math.inf, below: float = math.inf
) -> float:
    """`value` as a finite float in [low, high] and less than `below`; else a `ConfigError` that names it."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}={value!r} is not a number") from error
    if isinstance(value, bool) or not math.isfinite(number) or not low <= number <= high or number >= below:
        limit = f"in [{low:g}, {below:g})" if below < math.inf else f"in [{low:g}, {high:g}]"
        raise ConfigError(
            f"{name}={value!r} must be {limit if high < math.inf or below < math.inf else f'at least {low:g}'}"
        )
    return number
