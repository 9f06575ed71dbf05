"""Reads files that anybody may have made: plain ones only, of a size that is known to fit, without ever waiting.

Opening a pipe waits until somebody writes into it, and a device may have no end: neither is opened to be read. Every
refusal is an `OSError` with words for the user in `strerror`, like those of the operating system.
"""

import errno
import hashlib
import io
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "MOST_JSON_BYTES",
    "check_plain",
    "load_arrays",
    "open_plain",
    "parse_json",
    "plain_json",
    "read_json",
    "read_plain",
    "sha256_of",
]

MOST_JSON_BYTES = 64 * 2**20
# Deeper than any file of ours, and far below where Python's parser gives up.
_MOST_DEPTH = 100
# So many digits hold every number that we write; Python takes seconds for those of a million.
_MOST_DIGITS = 400


def open_plain(path: str | Path, most: int | None = None, *, follow: bool = True) -> io.BufferedReader:
    """Opens a plain file to be read as bytes.

    Args:
        path: the file.
        most: bytes that it may have; None for any number.
        follow: whether a link to a plain file is taken for one.

    Raises:
        OSError: it is missing, no plain file, larger, or cannot be read.
    """
    # Not blocking: a pipe that nobody writes into is opened at once, and then refused.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    if not stat.S_ISREG((os.stat(path) if follow else os.lstat(path)).st_mode):  # opening a device may do something
        raise _not_plain(path)
    descriptor = os.open(path, flags)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _not_plain(path)
        if most is not None and found.st_size > most:
            raise OSError(errno.EFBIG, f"it is too large ({found.st_size} bytes, {most} at most)", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_plain(path: str | Path, *, follow: bool = True) -> None:
    """Checks that `open_plain` would take a file, without reading it.

    Raises:
        OSError: as there.
    """
    open_plain(path, follow=follow).close()


def read_plain(path: str | Path, most: int, *, follow: bool = True) -> bytes:
    """Returns all bytes of a plain file of at most `most` bytes.

    Raises:
        OSError: as `open_plain`; also if the file grows beyond that while it is read.
    """
    with open_plain(path, most, follow=follow) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is too large (more than {most} bytes)", str(path))
    return content


def read_json(path: str | Path, most: int = MOST_JSON_BYTES, *, follow: bool = True, finite: bool = True) -> Any:
    """Returns the content of a JSON file: see `parse_json`.

    Raises:
        OSError: as `open_plain`.
        ValueError: as `parse_json`.
    """
    return parse_json(read_plain(path, most, follow=follow), finite=finite)


def parse_json(content: bytes | str, *, finite: bool = True) -> Any:
    """Parses JSON strictly: numbers of a sane length, no name twice, nothing nested without end.

    Args:
        content: UTF-8.
        finite: whether `NaN` and `Infinity` are refused; else they are None.

    Raises:
        ValueError: it is no such JSON, or no UTF-8.
    """
    text = content.decode() if isinstance(content, bytes) else content
    try:
        found = json.loads(
            text,
            parse_constant=_refuse if finite else lambda constant: None,
            parse_int=_int,
            parse_float=_float,
            object_pairs_hook=_without_repetition,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _check_depth(found)
    return found


def plain_json(value: Any) -> Any:
    """Returns a value as JSON has it: NumPy's numbers as Python's, None for one that is not finite."""
    if isinstance(value, dict):
        return {str(key): plain_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(inner) for inner in value]
    if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0:
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256_of(path: str | Path, *, follow: bool = True) -> str:
    """SHA-256 of a plain file, in hexadecimal; of any size, for it is read in pieces.

    Raises:
        OSError: as `open_plain`.
    """
    with open_plain(path, follow=follow) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file as NumPy writes it without packing; no Python object is unpickled.

    Raises:
        OSError: as `open_plain`.
        ValueError: it is no such file. A packed one could be of any size unpacked.
    """
    import zipfile

    with open_plain(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ValueError("it is packed")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {key: arrays[key] for key in arrays.files}
        except OSError:
            raise
        except Exception as error:  # zipfile and NumPy raise a dozen kinds for a damaged archive, KeyError too
            raise ValueError(str(error) or type(error).__name__) from error


def _not_plain(path: str | Path) -> OSError:
    return OSError(errno.EINVAL, "it is no plain file", str(path))


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits} is no finite number")
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if depth > _MOST_DEPTH:
            raise ValueError("it is nested too deeply")
        inner = [list(part.values()) if isinstance(part, dict) else part for part in level]
        level = [each for part in inner if isinstance(part, list) for each in part if isinstance(each, (dict, list))]
        depth += 1
