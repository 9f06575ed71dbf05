"""`package.module:function` references, as the command line takes them."""

import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from tfmb.errors import ConfigError

__all__ = ["check_reference", "is_reference", "load_function"]

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_reference(text: str) -> bool:
    """Whether a text looks like `package.module:function`."""
    return _FORM.fullmatch(text) is not None


def check_reference(reference: str, option: str) -> None:
    """Refuses, without importing anything, a text that does not look like `package.module:function`."""
    if not is_reference(reference):
        raise ConfigError(f"{option} {reference!r} is not of the form package.module:function")


def load_function(reference: str, option: str) -> Callable[..., Any]:
    """Imports `package.module:function`; the working directory is searched first.

    Args:
        reference: the module and the function's name in it.
        option: the option that named it, for error messages.

    Raises:
        ConfigError: no such module or function. Errors inside the module itself come through as they are.
    """
    check_reference(reference, option)
    module_name, _, name = reference.partition(":")
    if sys.path[:1] != [os.getcwd()]:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name + ".").startswith(error.name + "."):
            raise ConfigError(f"{option} {reference}: no module {error.name!r} here or in the environment") from error
        raise
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{option} {reference}: module {module_name!r} has no function {name!r}")
    return function
