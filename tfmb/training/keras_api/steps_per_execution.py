"""Executions: as many steps as Keras makes before it looks at callbacks and data again, `steps_per_execution`."""

from typing import Any

__all__ = ["steps_of_execution", "whole_executions"]


def steps_of_execution(model: Any) -> int:
    """The steps of an execution: `steps_per_execution` of `compile`."""
    return int(getattr(model, "steps_per_execution", None) or 1)


def whole_executions(steps: int | None, each: int) -> int | None:
    """The steps that Keras makes where so many are asked for, and there is data: its executions of `each` are whole."""
    return None if steps is None else -(-steps // each) * each
