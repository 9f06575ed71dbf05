"""Trials on a Ray cluster: `pip install 'tfmb[ray]'`."""

import socket
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from tfmb.errors import ConfigError

from .base import OwnWorkers

__all__ = ["OnRay"]

_PROBE_SECONDS = 10


class OnRay(OwnWorkers):
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
        super().__init__(workers or int(resources.get("CPU", 1)))
        gpus = min(1, resources.get("GPU", 0) / self.workers)
        self._actor = self._ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Actor)

    def put(self, data: Any) -> Any:
        """See `Executor`."""
        return self._ray.put(data)

    def begin(self, number: int) -> "Callable[..., Future[Any]]":
        """See `OwnWorkers`."""
        actor = self._actor.remote()
        self.callback(self._ray.kill, actor)
        return lambda fn, *args: actor.run.remote(fn, *args).future()

    def is_loss(self, error: BaseException | None) -> bool:
        """See `Executor`."""
        known = self._ray.exceptions
        return isinstance(error, (known.RayActorError, known.WorkerCrashedError, known.OutOfMemoryError))

    def new(self, error: BaseException) -> bool:
        """See `Executor`."""
        return bool(self._ray.is_initialized())


class _Actor:
    def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Returns `fn(*args)`."""
        return fn(*args)


def _connected(address: str | None) -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--executor ray: needs Ray: pip install 'tfmb[ray]'") from error
    host, _, port = (address or "").rpartition(":")
    try:
        if host and "/" not in host and port.isdecimal():  # Ray itself tries for minutes where nobody listens
            socket.create_connection((host, int(port)), _PROBE_SECONDS).close()
        if address is not None:
            ray.init(address=address or None, ignore_reinit_error=True, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        words = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise ConfigError(f"no Ray cluster answers at {address!r} ({words})") from error
    if not ray.is_initialized():
        raise ConfigError("Ray is not started: call ray.init() first, or give executor='ray:ADDRESS'")
    return ray
