"""One process a directory: an advisory lock that dies with the process, so that none is ever stale."""

import fcntl
import os
import socket
from pathlib import Path

from tfmb.errors import DirectoryError

__all__ = ["LOCK_FILE", "DirectoryLock"]

# Also the marker by which a directory is known to be ours.
LOCK_FILE = ".tfmb-run"


class DirectoryLock:
    """Holds a directory from `acquire` to `release`, or to the end of the process.

    Args:
        folder: the directory, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock, or says at once who has it.

        Raises:
            DirectoryError: another process has it.
            OSError: the file cannot be made.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise DirectoryError(
                f"{self._path.parent} is in use by {holder}: wait for it to end, or give another --run-dir"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Gives the lock back; the file stays, as our marker."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
