"""The search's own record: one line of JSON an event, appended and on the disk before anyone hears of it.

Keras Tuner writes its files too, in place and without `fsync`; nothing is ever read from them.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from tfmb.errors import DataError, StorageError
from tfmb.storage.files import check_plain, parse_json

__all__ = ["Journal"]

_MOST_BYTES = 256 * 2**20


class Journal:
    """An append-only file of events.

    Args:
        path: the file; made where it is not there.

    Attributes:
        events: all events so far, in order.

    Raises:
        DataError: a line in it (other than a last one that was not finished) is no event.
        StorageError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        try:
            if path.exists() or path.is_symlink():
                check_plain(path)
            self._file = path.open("a+b")
        except OSError as error:
            raise StorageError(f"{path} cannot be opened ({error.strerror})") from error
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, event: str, **entries: Any) -> dict[str, Any]:
        """Appends an event; when it returns, the event survives a crash.

        Raises:
            StorageError: it cannot be written; nothing of it is left.
        """
        found = {"event": event, **entries}
        line = json.dumps(found, allow_nan=False).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):  # a line that is not whole is left out at the next start
                self._file.truncate(end)
            raise StorageError(f"{self.path} cannot be written ({error.strerror}): free some space") from error
        self.events.append(found)
        return found

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _read(self) -> None:
        if self.path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{self.path} is too large for a search's journal")
        self._file.seek(0)
        content = self._file.read()
        whole, _, rest = content.rpartition(b"\n")
        for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
            try:
                event = parse_json(line)
                if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                    raise ValueError("it is no event")
            except ValueError as error:
                raise DataError(f"{self.path}: line {number} is damaged ({error}): give another --run-dir") from error
            self.events.append(event)
        if rest:  # the process ended while it wrote: nobody heard of that event
            self._file.truncate(len(content) - len(rest))
