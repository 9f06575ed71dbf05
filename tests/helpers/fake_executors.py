"""Executors that end their calls in an order that is drawn, or as no executor should."""

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any
from unittest import mock

from tfmb.tuning.executors.base import Executor
from tfmb.tuning.trials.slices import SliceReport, SliceTask

__all__ = ["Drawn", "Killed", "Odd", "drawn", "ended"]


class Drawn(Executor):
    """Ends a call only when the search waits, and then one of those that are open.

    Args:
        workers: the number of calls at the same time.
        choose: of how many -> which one.
        is_lost: whether the worker is lost at a call: after it has done it, before it has said so.
        most: calls after which it is as if the process of the search were killed; None for never.
    """

    def __init__(
        self,
        workers: int,
        choose: Callable[[int], int] = lambda count: 0,
        is_lost: Callable[[SliceTask], bool] = lambda task: False,
        most: int | None = None,
    ) -> None:
        super().__init__(workers)
        self._choose, self._is_lost, self._most = choose, is_lost, most
        self.open: list[tuple[futures.Future[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self.tasks: list[SliceTask] = []
        self.widest = 0

    def submit(self, fn: Callable[..., Any], *args: Any) -> "futures.Future[Any]":
        """See `Executor`."""
        future: futures.Future[Any] = futures.Future()
        self.open.append((future, fn, args))
        self.tasks.append(args[1])
        self.widest = max(self.widest, len(self.open))
        return future

    def end_one(self, *_: Any) -> None:
        """In the place of `concurrent.futures.wait`."""
        if self._most is not None:
            self._most -= 1
            if self._most < 0:
                raise Killed
        future, fn, args = self.open.pop(self._choose(len(self.open)))
        try:
            report = fn(*args)
            if self._is_lost(args[1]):
                raise futures.BrokenExecutor("it was killed")
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(report)


class Killed(BaseException):
    """In the place of SIGKILL to the process of the search."""


@contextmanager
def drawn(executor: Drawn) -> Iterator[Drawn]:
    """Inside its `with` block whoever waits for a future has the executor end one."""
    with mock.patch.object(futures, "wait", executor.end_one):
        yield executor


class Odd:
    """What a user may give: `submit` does what it is told from its second call on.

    Args:
        does: gets the first call's report; returns what `submit` is to return, or raises.
    """

    workers = 1

    def __init__(self, does: Callable[[SliceReport], Any]) -> None:
        self._does, self._first = does, list[SliceReport]()

    def put(self, data: Any) -> Any:
        """The data stay here."""
        return data

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        """See `Executor`."""
        if self._first:
            return self._does(self._first[0])
        self._first.append(fn(*args))
        return ended(self._first[0])


def ended(result: Any) -> "futures.Future[Any]":
    """A future that has a result, or an error."""
    future: futures.Future[Any] = futures.Future()
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future
