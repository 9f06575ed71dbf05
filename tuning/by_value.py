"""The user's code as bytes: by its name where it can be imported, else by value, as from a notebook's cell."""

from typing import Any

import cloudpickle

from tfmb.errors import ConfigError

__all__ = ["pickled"]


def pickled(value: Any, name: str) -> bytes:
    """Returns the pickle of a value: code that can be imported by its name, other code by value.

    Raises:
        ConfigError: it cannot be pickled.
    """
    try:
        return bytes(cloudpickle.dumps(value, protocol=5))
    except Exception as error:  # whatever the user's objects raise
        why = " ".join(str(error).split())[:150] or type(error).__name__
        mend = "let it make what it needs itself, or define it at the top of a module that is imported"
        raise ConfigError(f"{name} cannot be handed to workers ({why}): {mend}") from error
