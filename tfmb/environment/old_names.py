"""Names of arguments and options that are called otherwise than in 0.2.0: the old one is refused with the new one."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from tfmb.errors import ConfigError

__all__ = ["NEW_NAMES", "refuse_old_names", "refusing_old_names", "with_new_names"]

NEW_NAMES = {
    "allow_drift": "allow_mismatch",
    "noise_scale": "measure_noise_scale",
    "replicas": "devices",
    "static_shapes": "pad_batches",
}
_Function = TypeVar("_Function", bound=Callable[..., Any])


def refuse_old_names(given: Iterable[str]) -> None:
    """Raises a `ConfigError` for an argument that has another name now."""
    for name in given:
        if name in NEW_NAMES:
            raise ConfigError(f"{name} is called {NEW_NAMES[name]} now: write {NEW_NAMES[name]}=...")


def refusing_old_names(function: _Function) -> _Function:
    """A function of users that refuses the old names of its arguments."""

    @functools.wraps(function)
    def call(*arguments: Any, **given: Any) -> Any:
        refuse_old_names(given)
        return function(*arguments, **given)

    return cast(_Function, call)


def with_new_names(config: Any) -> Any:
    """The options of a record, which an earlier version may have written, by their names of today."""
    if not isinstance(config, dict):
        return config
    return {NEW_NAMES.get(name, name): value for name, value in config.items()}
