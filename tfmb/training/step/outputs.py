"""A model's outputs as a flat list with names, and the user's losses, targets or weights in the same order."""

from collections.abc import Sequence
from typing import Any

from tfmb.errors import ConfigError

__all__ = ["flatten_outputs", "per_output"]


def flatten_outputs(outputs: Any, output_names: Sequence[str] | None) -> tuple[list[str], list[Any]]:
    """The names and tensors of a model's outputs.

    Args:
        outputs: the model's result: a tensor, or one list, tuple or dict of tensors.
        output_names: `model.output_names`, where the model has it.

    Returns:
        Names (dict keys, the model's own names, or `output_1`, ...) and tensors, in one order.

    Raises:
        ConfigError: the outputs are nested more deeply.
    """
    if isinstance(outputs, dict):
        names, tensors = list(outputs), list(outputs.values())
    elif isinstance(outputs, (list, tuple)):
        tensors = list(outputs)
        known = list(output_names or [])
        names = known if len(known) == len(tensors) else [f"output_{i + 1}" for i in range(len(tensors))]
    else:
        names, tensors = ["output"], [outputs]
    if any(isinstance(tensor, (list, tuple, dict)) for tensor in tensors):
        raise ConfigError("the model's outputs are nested: return a tensor, or one list or dict of tensors")
    return names, tensors


def per_output(value: Any, names: Sequence[str], what: str, *, shared: bool = False) -> list[Any]:
    """Lays out the user's `value` output by output.

    Args:
        value: a list or tuple in the outputs' order, a dict by output name (names left out get None), or one leaf.
        names: the outputs' names.
        what: the name in error messages.
        shared: whether one leaf stands for every output; otherwise it does so only for a single one.

    Returns:
        One entry for each output.

    Raises:
        ConfigError: the entries do not fit the outputs.
    """
    if value is None:
        return [None] * len(names)
    if isinstance(value, dict):
        unknown = [key for key in value if key not in names]
        if not unknown:
            return [value.get(name) for name in names]
        if len(names) == 1 and len(value) == 1:
            return list(value.values())
        raise ConfigError(f"{what} names the output {unknown[0]!r}, but the model has {', '.join(names)}")
    if isinstance(value, (list, tuple)):
        if len(value) == len(names):
            return list(value)
        raise ConfigError(f"{what} has {len(value)} entries for {len(names)} output(s) ({', '.join(names)})")
    if shared or len(names) == 1:
        return [value] * len(names)
    raise ConfigError(f"{what}: the model has {len(names)} outputs ({', '.join(names)}): give a list or dict of them")
