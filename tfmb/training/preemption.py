"""SIGTERM and SIGINT as a wish to end after the current call; the second one ends the process as usual."""

import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tfmb.backend import tf
from tfmb.distribution import is_multi_worker

__all__ = ["StopSignals", "agreed"]

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


def agreed(reason: Callable[[], str | None], strategy: Any) -> Callable[[], str | None]:
    """`reason`, agreed on among all workers: each ends at the same update where any of them was asked to."""
    if not is_multi_worker(strategy):
        return reason

    @tf.function(autograph=False)
    def asked(own: Any) -> Any:
        def on_replica() -> Any:
            return tf.distribute.get_replica_context().all_reduce("sum", tf.identity(own))

        return strategy.experimental_local_results(strategy.run(on_replica))[0]

    def any_reason() -> str | None:
        own = reason()
        if float(asked(tf.constant(0.0 if own is None else 1.0))) == 0.0:
            return None
        return own or "another worker was asked to end"

    return any_reason
