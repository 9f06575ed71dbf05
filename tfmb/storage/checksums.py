"""`SHA256SUMS`: every file of a folder, as sha256sum writes and checks it."""

import os
import re
import stat
from pathlib import Path

from tfmb.errors import DataError
from tfmb.storage import files
from tfmb.storage.folders import naming

__all__ = ["SUMS_FILE", "check_sums", "read_plain", "write_sums"]

SUMS_FILE = "SHA256SUMS"
_MOST_BYTES = 4 * 2**20
_MOST_FILES = 10_000
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def write_sums(folder: Path) -> None:
    """Writes `SHA256SUMS` over all files of a folder and those under it.

    Raises:
        OSError: the disk is full or fails.
        DataError: something in it is neither a file nor a folder.
    """
    lines = [f"{files.sha256_of(folder / name, follow=False)}  {name}\n" for name in _files(folder)]
    with naming(folder / SUMS_FILE):
        (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path) -> None:
    """Compares every file of a folder with its `SHA256SUMS`. Nothing but the folder's own plain files is opened.

    Raises:
        DataError: a file is damaged, missing or not in the list, or the list cannot be read.
    """
    sums = _read_sums(folder)
    found = _files(folder)
    for name in sorted(set(found) ^ set(sums)):
        odd = "is not listed in" if name in found else "is missing, but listed in"
        raise DataError(f"{folder}: {name} {odd} {SUMS_FILE}: the export is damaged, export it again")
    for name, checksum in sums.items():
        try:
            known = files.sha256_of(folder / name, follow=False) == checksum
        except OSError as error:
            raise DataError(f"{folder / name} cannot be read ({error.strerror}): the export is damaged") from error
        if not known:
            raise DataError(f"{folder}: {name} does not match {SUMS_FILE}: the export is damaged, export it again")


def read_plain(path: Path, most: int) -> bytes:
    """The bytes of a plain file of at most that many; a link, pipe or device is not opened.

    Raises:
        DataError: it is none, or cannot be read.
    """
    try:
        return files.read_plain(path, most, follow=False)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): the export is damaged") from error


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS_FILE
    try:
        lines = read_plain(path, _MOST_BYTES).decode().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text: the export is damaged") from error
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        # Names are compared with those that are there, and never followed: `..` is none of them.
        if match is None or not match[2].isprintable() or match[2] in sums or number > _MOST_FILES:
            raise DataError(f"{path}, line {number}, is no SHA-256 and name of a file: the export is damaged")
        sums[match[2]] = match[1]
    return sums


def _files(folder: Path) -> list[str]:
    """The paths of all files under a folder, relative to it, but for the list itself.

    Raises:
        DataError: something is neither a plain file nor a folder, or has a name that a line cannot hold.
    """
    names = []
    for parent, folders, names_of_files in os.walk(folder):
        for name in [*folders, *names_of_files]:
            path = Path(parent) / name
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise DataError(f"{path} is no plain file: the export is damaged")
            relative = path.relative_to(folder).as_posix()
            # Beyond this sha256sum would write the name in another form.
            if _LINE.fullmatch(f"{'0' * 64}  {relative}") is None or not relative.isprintable() or "\\" in relative:
                raise DataError(f"{folder}: {relative!a} is no name of a file of an export: the export is damaged")
            if stat.S_ISREG(mode) and relative != SUMS_FILE:
                names.append(relative)
            if len(names) > _MOST_FILES:
                raise DataError(f"{folder} holds more than {_MOST_FILES} files: it is no export")
    return sorted(names)
