"""SIGTERM and SIGINT as a wish to end after the current call; the second one ends the process as usual."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

__all__ = ["StopSignals", "uninterrupted"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Only notes the first SIGTERM or SIGINT inside its `with` block; the old handlers are back after it."""

    def __init__(self) -> None:
        self._caught: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_back()

    def reason(self) -> str | None:
        """The signal's name, or None before one came."""
        return None if self._caught is None else signal.Signals(self._caught).name

    def send_again(self) -> None:
        """Lets the handlers outside of the block hear of the signal that was noted, if there was one."""
        if self._caught is not None:
            signal.raise_signal(self._caught)

    def _note(self, number: int, _: Any) -> None:
        self._caught = number
        self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delays a SIGTERM or SIGINT to the end of the `with` block: half-done work there would be lost."""
    signals = StopSignals()
    try:
        with signals:
            yield
    finally:
        signals.send_again()
