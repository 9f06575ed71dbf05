"""Executions: as many steps as Keras makes before it looks at callbacks and data again, `steps_per_execution`."""

from tfmb.types import KerasModel

__all__ = ["steps_of_execution", "whole_executions"]


def steps_of_execution(model: KerasModel) -> int:
    """The steps of an execution: `steps_per_execution` of `compile`."""
    return int(getattr(model, "steps_per_execution", None) or 1)


def whole_executions(steps: int | None, each: int) -> int | None:
    """Returns the steps that Keras makes for `steps`, if there is data: its executions of `each` steps are whole."""
    return None if steps is None else -(-steps // each) * each
