"""`tfmb tune --join`: workers on this host for a search whose chief runs on another."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from tfmb.errors import ConfigError, PeerLostError

from . import wire
from .chief import MOST_DEATHS, error_of, stopping, why_lost
from .crew import Crew, Ended
from .door import JOIN, LEAVE, read_token
from .handover import to_json

__all__ = ["join_search"]

_LOOK_SECONDS = 0.1
_JOIN_SECONDS = 60.0  # how long a chief may take to start, or not be reached
_LEAVE_SECONDS = 5.0
# What each host may have its own of.
_OWN = ("mirror", "strategy", "devices", "workers", "listen", "max_trials", "timeout")


def join_search(address: str, config: Any, folder: Path, say: Callable[[str], None]) -> int:
    """Runs trials for a search until it has none left.

    Args:
        address: `HOST:PORT` of its chief.
        config: the `TuneConfig` of this host: `workers` processes run trials, with its `mirror`, `strategy` and
            `devices`; all else must be as the search's.
        folder: the search's directory, on a disk that both hosts share.
        say: gets a line for the user now and then.

    Returns:
        How many workers of this host ran trials to the end of the search.

    Raises:
        ConfigError: it is another search, or the user's code raised an error.
        PeerLostError: the chief cannot be reached, or is gone; or a worker died again and again.
        PreemptedError: SIGTERM.
    """
    names = [f"worker-{number}" for number in range(config.workers)]
    chief = _Chief(address, folder)
    try:
        with stopping() as check, Crew(names) as crew:
            guests: dict[str, wire.Address] = {}
            deaths = dict.fromkeys(names, 0)

            def start(name: str) -> None:
                came = chief.join()
                _compare(config, came["told"]["config"])
                guests[name] = chief.address(came)
                task = {"config": to_json(config), "fingerprint": came["told"]["fingerprint"]}
                told = {"chief": address, "worker": came["worker"], "token": came["token"], "task": task}
                about = {key: came["told"][key] for key in ("slices", "objective")}
                crew.start(name, {**told, **about, "folder": str(folder)})

            for name in names:
                start(name)
                say(f"{guests[name].worker} joined the search at {address}")
            done = 0
            while crew.running:
                check()
                for ended in crew.ended():
                    chief.leave(guests.pop(ended.worker), ended)
                    if ended.error is not None:
                        raise error_of(ended)
                    if ended.code == 0:
                        done += 1
                    elif ended.code == PeerLostError.exit_code:
                        raise PeerLostError(
                            f"lost the chief of the search at {address}: when it runs again, join again"
                        )
                    else:
                        deaths[ended.worker] += 1
                        if deaths[ended.worker] >= MOST_DEATHS:
                            raise PeerLostError(why_lost(ended, MOST_DEATHS, None))
                        start(ended.worker)
                time.sleep(_LOOK_SECONDS)
            return done
    finally:
        chief.close()


class _Chief:
    """The chief, as this host's first process calls it."""

    def __init__(self, address: str, folder: Path) -> None:
        self._address, self._token = address, read_token(folder)
        self._host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:40].lstrip(".-") or "host"
        self._channel = wire.Address(target=address, worker="", token="").channel()

    def close(self) -> None:
        """Hangs up."""
        self._channel.close()

    def join(self) -> dict[str, Any]:
        """A new worker's `worker`, `token` and what it is `told`."""
        known = wire.Address(target=self._address, worker=self._host, token=self._token)
        try:
            answer = self._channel.unary_unary(f"/{wire.SERVICE}/{JOIN}")(
                json.dumps({"host": self._host}).encode(),
                metadata=known.metadata,
                timeout=_JOIN_SECONDS,
                wait_for_ready=True,
            )
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise ConfigError(f"the search at {self._address} is not the one in --run-dir") from error
            why = error.details() or error.code().name
            raise PeerLostError(
                f"no search answers at {self._address} ({why}): look at --join, and whether it runs"
            ) from (error)
        found: dict[str, Any] = json.loads(answer)
        return found

    def address(self, came: dict[str, Any]) -> wire.Address:
        """Where a worker that joined calls the chief, and as whom."""
        return wire.Address(target=self._address, worker=came["worker"], token=came["token"])

    def leave(self, guest: wire.Address, ended: Ended) -> None:
        """Tells the chief that a worker is gone, so that its trial need not wait."""
        with contextlib.suppress(grpc.RpcError):  # the chief is gone too, or will miss it
            self._channel.unary_unary(f"/{wire.SERVICE}/{LEAVE}")(
                json.dumps({"error": ended.error}).encode(), metadata=guest.metadata, timeout=_LEAVE_SECONDS
            )


def _compare(config: Any, theirs: dict[str, Any]) -> None:
    """Raises a `ConfigError` where trials here would not be the search's."""
    ours = to_json(config)
    different = [name for name in ours if name not in _OWN and ours[name] != theirs.get(name)]
    if different or set(ours) != set(theirs):
        raise ConfigError(
            f"the search has another {', '.join(different) or 'version of tfmb'}: give --join beside the same arguments"
        )
