"""The user's own functions, for processes that we start: by name where they can be imported, else by value.

A cell of a notebook, a script and a function inside another define what no other process can import. Such functions
are pickled, with what they use. The pickle goes through the pipe that is a worker's standard input, from the process
that made it to one that it started, and is never in a file or on a network.
"""

import base64
import contextlib
import importlib
import pickle
from typing import Any

import cloudpickle

from tfmb.environment.imports import load_function
from tfmb.errors import ConfigError

__all__ = ["pack_function", "pack_value", "unpack"]

_MOST_BYTES = 64 * 2**20


def pack_function(function: Any, name: str) -> dict[str, str]:
    """What `unpack` makes the function of in another process: its name where it has one there, else its pickle.

    Args:
        function: any callable.
        name: the argument that it came in, for the error.

    Raises:
        ConfigError: it can be neither imported nor pickled.
    """
    module, own = str(getattr(function, "__module__", "") or ""), str(getattr(function, "__qualname__", ""))
    if module and module != "__main__" and own.isidentifier():
        with contextlib.suppress(ImportError):  # a module made by hand, which no other process has
            if getattr(importlib.import_module(module), own, None) is function:
                return {"import": f"{module}:{own}"}
    return pack_value(function, name)


def pack_value(value: Any, name: str) -> dict[str, str]:
    """The same for anything, by value alone.

    Raises:
        ConfigError: it cannot be pickled, or is too much.
    """
    mend = "let it make what it needs itself, or define it at the top of a module that is imported"
    try:
        found = cloudpickle.dumps(value)
    except Exception as error:  # whatever the user's objects raise
        why = " ".join(str(error).split())[:150] or type(error).__name__
        raise ConfigError(f"{name} cannot be handed to workers ({why}): {mend}") from error
    if len(found) > _MOST_BYTES:
        raise ConfigError(
            f"{name} uses {len(found) / 2**20:,.0f} MiB of this process's values, and workers take at "
            f"most {_MOST_BYTES // 2**20}: {mend}"
        )
    return {"pickle": base64.b64encode(found).decode()}


def unpack(packed: dict[str, str], name: str) -> Any:
    """What `pack_function` or `pack_value` made, in a worker.

    Raises:
        ConfigError: it cannot be imported, or something that it uses cannot.
    """
    if "import" in packed:
        return load_function(packed["import"], name)
    try:
        return pickle.loads(base64.b64decode(packed["pickle"]))
    except Exception as error:  # whatever the user's modules raise
        why = " ".join(str(error).split())[:150] or type(error).__name__
        raise ConfigError(f"a worker cannot make {name} ({why}): define it in a module that is imported") from error
