"""How workers of other hosts come to a search: by its address, and by a token in its directory, which they share."""

import contextlib
import hmac
import json
import os
import re
import secrets
import threading
from pathlib import Path
from typing import Any

from tfmb.errors import ConfigError

from .crew import Ended

__all__ = ["JOIN", "LEAVE", "Door", "read_token"]

# Calls besides Keras Tuner's, with JSON as their content: a process of another host comes, and is gone.
JOIN, LEAVE = "Join", "Leave"
_TOKEN = "token"
_MOST_HOST, _MOST_CONTENT, _MOST_GUESTS = 40, 64 * 2**10, 10_000


class Door:
    """The chief's side.

    Args:
        address: `HOST:PORT` to listen on.
        folder: the search's directory; the token is written into it, for its owner to read, until `close`.
        told: what trials are run with; a guest compares it with its own.
    """

    def __init__(self, address: str, folder: Path, told: dict[str, Any]) -> None:
        self.address, self.told = address, told
        self._path = folder / _TOKEN
        self._token = secrets.token_hex(32)
        with contextlib.suppress(FileNotFoundError):  # of a chief that was killed
            self._path.unlink()
        with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self._token)
        self._lock = threading.Lock()
        self._here: set[str] = set()
        self._left: list[Ended] = []
        self._joined = 0

    def close(self) -> None:
        """Takes the token away."""
        self._path.unlink(missing_ok=True)

    @property
    def here(self) -> set[str]:
        """The guests that came and are not gone."""
        with self._lock:
            return set(self._here)

    def knows(self, token: str) -> bool:
        """Whether a token is the search's."""
        return hmac.compare_digest(token.encode(), self._token.encode())

    def come(self, content: bytes) -> str:
        """A process of another host wants to be a worker; returns its name.

        Raises:
            ConfigError: what it says makes no sense, or too many came before it.
        """
        host = _read(content, "host")
        if not isinstance(host, str) or len(host) > _MOST_HOST or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", host):
            raise ConfigError("a host's name is up to 40 letters, digits, dots and dashes")
        with self._lock:
            if self._joined >= _MOST_GUESTS:
                raise ConfigError("too many workers joined this search: start it again to take more")
            self._joined += 1
            name = f"{host}-{self._joined}"
            self._here.add(name)
        return name

    def go(self, worker: str, content: bytes) -> None:
        """A guest's process ended, with its last words or without.

        Raises:
            ConfigError: what is said makes no sense.
        """
        error = _read(content, "error")
        if error is not None:
            if not isinstance(error, dict) or not all(isinstance(error.get(key), str) for key in ("kind", "message")):
                raise ConfigError("an error is a kind and a message")
            error = {"kind": error["kind"], "message": error["message"]}
        with self._lock:
            if worker in self._here:
                self._here.remove(worker)
                self._left.append(Ended(worker=worker, code=0 if error is None else 1, error=error))

    def forget(self, worker: str) -> None:
        """A guest is lost."""
        with self._lock:
            self._here.discard(worker)

    def left(self) -> list[Ended]:
        """Those that went since the last time."""
        with self._lock:
            found, self._left = self._left, []
        return found


def read_token(folder: Path) -> str:
    """The token of the search in a directory.

    Raises:
        ConfigError: none is served from there.
    """
    try:
        with (folder / _TOKEN).open() as file:
            return file.read(200)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no search with --listen runs in {folder}: --join needs the directory of one, which the hosts share"
        ) from error


def _read(content: bytes, name: str) -> Any:
    """The one entry of a call's content."""
    try:
        found = json.loads(content) if len(content) <= _MOST_CONTENT else None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"this call holds no {name}") from error
    if not isinstance(found, dict) or set(found) != {name}:
        raise ConfigError(f"this call holds no {name}")
    return found[name]
