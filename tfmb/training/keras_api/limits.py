"""The number of steps that Keras makes: in executions, and within its limits on every training of a process.

An execution is as many steps as Keras makes before it looks at callbacks and data again, `steps_per_execution`. The
limits are for trying things out: `set_max_epochs`, `set_max_steps_per_epoch`.
"""

import warnings

from tfmb.backend import keras
from tfmb.types import KerasModel

__all__ = ["limited_epochs", "limited_steps", "steps_of_execution", "whole_executions"]


def limited_epochs(epochs: int) -> int:
    """Returns the epochs that `keras.config.set_max_epochs` allows, with a warning if they are fewer."""
    most = keras.config.max_epochs()
    if not most or most >= epochs:
        return epochs
    warnings.warn(f"keras.config.set_max_epochs({most}) holds: {most} epoch(s), not {epochs}", stacklevel=3)
    return int(most)


def limited_steps(steps: int | None, name: str) -> int | None:
    """Returns the steps that `keras.config.set_max_steps_per_epoch` allows, with a warning if it decides.

    Args:
        steps: as they were asked for; None for all.
        name: the argument.
    """
    most = keras.config.max_steps_per_epoch()
    if not most or (steps and most >= steps):
        return steps
    warnings.warn(f"keras.config.set_max_steps_per_epoch({most}) holds: {name} is {most}, not {steps}", stacklevel=3)
    return int(most)


def steps_of_execution(model: KerasModel) -> int:
    """The steps of an execution: `steps_per_execution` of `compile`."""
    return int(getattr(model, "steps_per_execution", None) or 1)


def whole_executions(steps: int | None, each: int) -> int | None:
    """Returns the steps that Keras makes for `steps`, if there is data: its executions of `each` steps are whole."""
    return None if steps is None else -(-steps // each) * each
