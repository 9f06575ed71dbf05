"""Trials on a Dask cluster: `pip install 'tfmb[dask]'`."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tfmb.errors import ConfigError

from .base import Executor, followed

__all__ = ["OnDask"]

_RESTART_SECONDS = 300  # in which a worker that was lost must have come back, where there is no other
_LOST = ("KilledWorker", "CommClosedError", "FutureCancelledError", "CancelledError")


class OnDask(Executor):
    """A Dask client's workers. Dask tries a task whose worker died on others, and then gives it back to the search.

    Args:
        client: a `distributed.Client`, or the address of a scheduler.
        workers: the number of tasks at the same time; None for as many as there are workers.

    Raises:
        ConfigError: nobody answers, there is no worker, or one has several threads, which would share one TensorFlow.
    """

    def __init__(self, client: Any, workers: int | None) -> None:
        super().__init__()
        self._client = self._connected(client) if isinstance(client, str) else client
        threads = self._client.nthreads()
        if not threads:
            raise ConfigError(f"the Dask cluster at {self._client.scheduler.address} has no workers: start some")
        if several := [name for name, count in threads.items() if count != 1]:
            raise ConfigError(f"the Dask worker {several[0]} has several threads: start it with --nthreads 1")
        self.workers = workers or len(threads)

    def _connected(self, address: str) -> Any:
        try:
            from distributed import Client

            return self.enter_context(Client(address, timeout=10))
        except ImportError as error:
            raise ConfigError("--executor dask: needs Dask: pip install 'tfmb[dask]'") from error
        except (OSError, ValueError, TimeoutError) as error:
            words = " ".join(str(error).split())[:200]
            raise ConfigError(f"no Dask scheduler answers at {address!r} ({words})") from error

    def put(self, data: Any) -> Any:
        """See `Executor`."""
        self._data, self._sent = data, self._client.scatter(data, broadcast=True, hash=False)
        return data

    def submit(self, fn: Callable[..., Any], *args: Any) -> "Future[Any]":
        """See `Executor`."""
        sent = [self._sent if arg is self._data else arg for arg in args]
        return followed(self._client.submit(fn, *sent, pure=False, retries=0))

    def is_loss(self, error: BaseException | None) -> bool:
        """See `Executor`."""
        return type(error).__name__ in _LOST

    def new(self, error: BaseException) -> bool:
        """See `Executor`: Dask starts a worker again, but loses the data with the last worker that had them."""
        if self._client.status != "running":
            return False
        try:
            self._sent = self._client.scatter(self._data, broadcast=True, hash=False, timeout=_RESTART_SECONDS)
        except TimeoutError:
            return False
        return True
