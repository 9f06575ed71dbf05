"""SIGTERM and SIGINT as a wish to end after the current call; the second one ends the process as usual."""

import signal
import threading
from types import TracebackType
from typing import Any

__all__ = ["StopSignals"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Inside its `with` block, the first SIGTERM or SIGINT is only noted; after it the old handlers are back."""

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
        """The signal's name, once there was one."""
        return None if self._caught is None else signal.Signals(self._caught).name

    def _note(self, number: int, _: Any) -> None:
        self._caught = number
        self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
