"""The meeting of a run's workers before TensorFlow's servers start, and the list of those that can be reached.

TensorFlow's first worker waits for the others without an end, where neither a timeout nor Ctrl-C reaches it. So they
meet here first, on the ports its servers take over: the first worker tells the others who is missing, until nobody is.
One that dies in the instant between this and TensorFlow's own registration is still waited for.
"""

import contextlib
import hashlib
import os
import socket
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

from tfmb.errors import ConfigError, PeerLostError

__all__ = ["Cluster", "join_seconds", "meet"]

_NOTICE_SECONDS = 10.0
_PROBE_SECONDS = 5.0  # in all, for the question who is still there
_TURN_SECONDS = 0.2
_LONGEST_LINE = 100_000


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The workers of a run.

    Attributes:
        names: TensorFlow's name of each of them, such as `worker 1`; the first leads.
        addresses: `address:port` of each.
        rank: which of them this process is.
    """

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    rank: int

    def __post_init__(self) -> None:
        for name, address in zip(self.names, self.addresses, strict=True):
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ConfigError(f"the address {address!r} of {name} is not of the form ADDRESS:PORT")

    @property
    def others(self) -> list[int]:
        """The ranks of the other workers."""
        return [rank for rank in range(len(self.names)) if rank != self.rank]

    def endpoint(self, rank: int) -> tuple[str, int]:
        """A worker's host and port."""
        host, _, port = self.addresses[rank].rpartition(":")
        return host.strip("[]"), int(port)

    def describe(self, ranks: Iterable[int]) -> str:
        """Workers by name and address."""
        return ", ".join(f"{self.names[rank]} ({self.addresses[rank]})" for rank in ranks)

    def unreachable(self) -> list[int]:
        """The others on whose port nobody listens. A process that hangs still counts as there."""
        deadline = time.monotonic() + _PROBE_SECONDS
        gone = []
        for rank in self.others:
            seconds = min(1.0, deadline - time.monotonic())
            if seconds <= 0:
                break
            try:
                socket.create_connection(self.endpoint(rank), timeout=seconds).close()
            except OSError:
                gone.append(rank)
        return gone

    @property
    def token(self) -> str:
        """Tells this cluster's workers from strangers and from those of other runs."""
        return hashlib.sha256("\n".join(self.addresses).encode()).hexdigest()


def join_seconds() -> float:
    """Returns the seconds that a worker waits for the others: `TFMB_JOIN_SECONDS`, 300 by default.

    Raises:
        ConfigError: it is no number above 0.
    """
    text = os.environ.get("TFMB_JOIN_SECONDS") or "300"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise ConfigError(f"TFMB_JOIN_SECONDS={text!r} must be a number of seconds above 0")
    return seconds


def meet(cluster: Cluster, seconds: float) -> None:
    """Returns when every worker of the cluster has come.

    Args:
        cluster: its workers.
        seconds: the time to wait.

    Raises:
        PeerLostError: somebody has not come, whom it names, or this worker's port is taken.
    """
    with _listen(cluster) as listener:
        wait = _Wait(cluster, seconds)
        if cluster.rank == 0:
            _gather(listener, wait)
        else:
            _report(wait)


@dataclass
class _Wait:
    """A wait with an end, which says after a while that it waits."""

    cluster: Cluster
    seconds: float
    told: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until its end."""
        return self.started + self.seconds - time.monotonic()

    def check(self, missing: Iterable[int]) -> None:
        """Raises the error if time is up."""
        if self.left <= 0:
            raise self.error(missing)
        if not self.told and self.seconds - self.left > _NOTICE_SECONDS:
            self.told = True
            who = self.cluster.describe(missing)
            warnings.warn(f"waiting for {who}, for {self.left:.0f} s more at most", stacklevel=2)

    def error(self, missing: Iterable[int]) -> PeerLostError:
        """Returns the error to raise if these workers have not come."""
        return PeerLostError(
            f"{self.cluster.describe(missing)} did not join within {self.seconds:g} s (TFMB_JOIN_SECONDS): see that "
            "every worker runs, with the same cluster in TF_CONFIG and an address the others can reach; then start "
            "all workers again"
        )


def _listen(cluster: Cluster) -> socket.socket:
    """Takes this worker's port on every interface, as TensorFlow will."""
    _, port = cluster.endpoint(cluster.rank)
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise PeerLostError(
            f"{cluster.names[cluster.rank]} cannot listen on port {port} ({error.strerror}): end the process that "
            "uses this port, or change the port of this worker in the TF_CONFIG of all workers"
        ) from error
    return listener


def _gather(listener: socket.socket, wait: _Wait) -> None:
    """The first worker's side: hears who has come, and tells all of them who has not."""
    cluster = wait.cluster
    joined: dict[int, socket.socket] = {}
    listener.settimeout(_TURN_SECONDS)
    told: list[int] | None = None
    with contextlib.ExitStack() as stack:
        while missing := [rank for rank in cluster.others if rank not in joined]:
            if missing != told:
                told = missing
                _tell(joined, "wait", missing)
            try:
                wait.check(missing)
            except PeerLostError:
                _tell(joined, "end", missing)
                raise
            with contextlib.suppress(TimeoutError):
                connection = stack.enter_context(listener.accept()[0])
                rank = _rank_of(connection, cluster)
                if rank in missing:
                    joined[rank] = connection
                else:
                    connection.close()
            joined = {rank: connection for rank, connection in joined.items() if _is_open(connection)}
        _tell(joined, "begin", [])


def _report(wait: _Wait) -> None:
    """Runs the other workers' side: asks the first one again and again, until it gives the word to begin."""
    while True:
        wait.check([0])
        word, missing = _visit(wait)
        if word == "begin":
            return
        if word == "end" or wait.left <= 0:
            raise wait.error(missing)
        time.sleep(_TURN_SECONDS)


def _visit(wait: _Wait) -> tuple[str, list[int]]:
    """Returns the first worker's last word, and the workers it misses; worker 0 itself if it says nothing."""
    word, missing = "", [0]
    # What is no word of it comes from a stranger on its port.
    with contextlib.suppress(OSError, ValueError):
        address = wait.cluster.endpoint(0)
        with socket.create_connection(address, timeout=max(min(1.0, wait.left), 0.01)) as connection:
            connection.sendall(f"{wait.cluster.token} {wait.cluster.rank}\n".encode())
            connection.settimeout(max(wait.left, 0.01))
            lines = connection.makefile()
            while word not in ("begin", "end") and (line := lines.readline(_LONGEST_LINE)):
                word, *ranks = line.split()
                missing = [int(rank) for rank in ranks]
    return word, missing


def _tell(joined: dict[int, socket.socket], word: str, ranks: Iterable[int]) -> None:
    for connection in joined.values():
        with contextlib.suppress(OSError):
            connection.settimeout(1.0)
            connection.sendall(" ".join([word, *map(str, ranks)]).encode() + b"\n")


def _rank_of(connection: socket.socket, cluster: Cluster) -> int:
    """Returns the rank of the worker that connected; -1 for a stranger."""
    connection.settimeout(1.0)
    try:
        token, rank = connection.makefile().readline(_LONGEST_LINE).split()
        return int(rank) if token == cluster.token else -1
    except (OSError, ValueError):
        return -1


def _is_open(connection: socket.socket) -> bool:
    connection.settimeout(0.0)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
