"""Counts traces and compilations, so that their time can be kept apart from that of updates."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

__all__ = ["Traces"]


class Traces:
    """Counts the traces of functions, and the shapes that XLA compiled them for.

    XLA compiles for each new shape when it comes, and no trace shows it.

    Args:
        functions: `tf.function`s.
        by_shape: whether XLA compiles them for each shape.
    """

    def __init__(self, functions: Sequence[Any], by_shape: bool) -> None:
        self._functions = functions
        self._by_shape = by_shape
        self._shapes: set[Hashable] = set()

    def met(self, shapes: Iterable[Hashable]) -> None:
        """Notes the sizes that decide the shapes of some batches, after they were worked on."""
        if self._by_shape:
            self._shapes.update(shapes)

    @property
    def count(self) -> int:
        """The number of times that something was traced or compiled so far."""
        return sum(function.experimental_get_tracing_count() for function in self._functions) + len(self._shapes)
