"""The configuration of a Keras optimizer, whose learning rate may have none."""

from typing import Any

from tfmb.backend import keras
from tfmb.types import Tensor

__all__ = ["config_of", "copy_of"]


def config_of(optimizer: Any) -> dict[str, Any]:
    """Returns `get_config()`, without `learning_rate` if that is a function or a schedule without a configuration.

    Keras raises in this case, or describes a function by its code.
    """
    rate = optimizer._learning_rate
    if _is_described(rate):
        return dict(optimizer.get_config())
    kept = vars(optimizer)
    kept["_learning_rate"] = None  # of which Keras writes down a number
    try:
        config = dict(optimizer.get_config())
    finally:
        kept["_learning_rate"] = rate
    del config["learning_rate"]
    return config


def copy_of(optimizer: Any) -> Any:
    """A new optimizer of the same class and settings; a rate without a configuration is shared."""
    config = config_of(optimizer)
    return type(optimizer).from_config({"learning_rate": optimizer._learning_rate, **config})


def _is_described(rate: Tensor) -> bool:
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return isinstance(rate, keras.Variable)
    try:
        rate.get_config()
    except NotImplementedError:  # Keras's own word where a user's class has none
        return False
    return True
