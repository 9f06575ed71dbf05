"""What each replica holds of a variable."""

from typing import Any

__all__ = ["copies"]


def copies(variable: Any) -> list[Any]:
    """Every replica's copy of a variable, as arrays."""
    return [copy.numpy() for copy in getattr(variable, "values", [variable])]
