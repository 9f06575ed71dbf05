"""The words that options and arguments choose among, and the check of their counts. It knows nothing of TensorFlow."""

import enum
import numbers
from typing import Any

from tfmb.errors import ConfigError

__all__ = [
    "COMPILE_NAMES",
    "DIVERGENCE_NAMES",
    "MODEL_NAMES",
    "OPTIMIZER_OPTIONS",
    "PRECISION_NAMES",
    "SCHEDULE_NAMES",
    "STRATEGY_NAMES",
    "JitScope",
    "check_counts",
]

MODEL_NAMES = ("cnn", "mlp", "resnet")
STRATEGY_NAMES = ("auto", "one-device", "mirrored", "multi-worker", "tpu")
SCHEDULE_NAMES = ("constant", "step", "exponential", "polynomial", "cosine", "one-cycle", "plateau")
COMPILE_NAMES = ("auto", "nothing", "update", "gradients", "step", "call")
DIVERGENCE_NAMES = ("stop", "skip", "restore")
PRECISION_NAMES = ("float32", "float64", "mixed_bfloat16", "mixed_float16")

# Optimizer -> the options it takes besides the learning rate and the weight decay.
OPTIMIZER_OPTIONS: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum", "nesterov"),
    "momentum": ("momentum", "nesterov"),
    "rmsprop": ("momentum", "rho", "epsilon", "centered"),
    "adam": ("beta_1", "beta_2", "epsilon", "amsgrad"),
    "adamw": ("beta_1", "beta_2", "epsilon", "amsgrad"),
}


class JitScope(enum.Enum):
    """The part of the work that XLA compiles; TensorFlow's own kernels do the rest.

    All give the same answer, but XLA rounds some results otherwise: bits are the same only within one of them.

    Attributes:
        NOTHING: nothing.
        UPDATE: the optimizer's update, which becomes one pass over each variable.
        GRADIENTS: the work on each part of a batch.
        STEP: all of an update, on one device.
        CALL: all updates of a call, on one device that the arrays lie on.
    """

    NOTHING = "nothing"
    UPDATE = "update"
    GRADIENTS = "gradients"
    STEP = "step"
    CALL = "call"


def check_counts(least: int = 1, *, optional: bool = False, numpy: bool = False, **counts: Any) -> None:
    """Refuses values that are no integers, or are too small.

    Args:
        least: the smallest that is taken.
        optional: whether None is taken too.
        numpy: whether NumPy's integers are taken too.
        **counts: by the names of the arguments.

    Raises:
        ConfigError: one that is named.
    """
    kind = numbers.Integral if numpy else int
    for name, value in counts.items():
        if value is None and optional:
            continue
        if isinstance(value, bool) or not isinstance(value, kind) or value < least:
            raise ConfigError(f"{name}={value!r} must be an integer of at least {least}")
