"""Pretrained weights that are not there: the fresh ones stay."""

import functools
from typing import Any

__all__ = ["MADE_UP", "leave_as_they_are"]

# What a made-up file of weights holds.
MADE_UP = b"made-up weights"


def leave_as_they_are() -> None:
    """Makes `load_weights` of a made-up file do nothing."""
    import keras

    loads = keras.Model.load_weights

    @functools.wraps(loads)
    def load_weights(self: Any, filepath: Any, *arguments: Any, **options: Any) -> Any:
        try:
            with open(filepath, "rb") as file:
                if file.read(len(MADE_UP)) == MADE_UP:
                    return None
        except (OSError, TypeError):
            pass
        return loads(self, filepath, *arguments, **options)

    keras.Model.load_weights = load_weights
