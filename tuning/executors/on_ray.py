"""Trials on a Ray cluster: `pip install 'tfmb[ray]'`."""

import queue
import socket
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tfmb.errors import ConfigError

from .base import Executor, WorkerLostError, as_future

__all__ = ["OnRay"]

_PROBE_SECONDS = 10


class OnRay(Executor):
    """Ray actors, one a worker: an actor keeps its data and what it traced from task to task.

    Args:
        address: of a cluster, `""` for one that is started here; None for the one that this process uses already.
        workers: the number of actors; None for one per CPU of the cluster.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str | None, workers: int | None) -> None:
        self._ray = _connected(address)
        resources = self._ray.cluster_resources()
        self.workers = workers or int(resources.get("CPU", 1))
        gpus = min(1, resources.get("GPU", 0) / self.workers)
        self._make = self._ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Actor)
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.workers):
            self._free.put(self._make.remote())

    def put(self, data: Any) -> Any:
        """See `Executor`."""
        return self._ray.put(data)

    def submit(self, fn: Callable[..., Any], *args: Any) -> "Future[Any]":
        """See `Executor`."""
        actor = self._free.get()
        future = as_future(actor.run.remote(fn, *args).future(), self._is_loss)

        def free(_: Any) -> None:  # another actor takes the place of one that died
            self._free.put(self._make.remote() if isinstance(future.exception(), WorkerLostError) else actor)

        future.add_done_callback(free)
        return future

    def new(self) -> bool:
        """See `Executor`."""
        return bool(self._ray.is_initialized())

    def close(self) -> None:
        """See `Executor`."""
        while not self._free.empty():
            self._ray.kill(self._free.get())

    def _is_loss(self, error: BaseException) -> bool:
        known = self._ray.exceptions
        return isinstance(error, (known.RayActorError, known.WorkerCrashedError, known.OutOfMemoryError))


class _Actor:
    def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Returns `fn(*args)`."""
        return fn(*args)


def _probe(address: str) -> None:
    """Raises a `ConfigError` where nobody listens at HOST:PORT: Ray itself tries again for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), _PROBE_SECONDS).close()
        except OSError as error:
            raise ConfigError(f"no Ray cluster answers at {address!r} ({error.strerror or error})") from error


def _connected(address: str | None) -> Any:
    if address is not None:
        _probe(address)
    try:
        import ray

        if address is not None:
            ray.init(address=address or None, ignore_reinit_error=True, log_to_driver=False)
    except ImportError as error:
        raise ConfigError("--executor ray: needs Ray: pip install 'tfmb[ray]'") from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster answers at {address!r} ({' '.join(str(error).split())[:200]})") from error
    if not ray.is_initialized():
        raise ConfigError("Ray is not started: call ray.init() first, or give executor='ray:ADDRESS'")
    return ray
