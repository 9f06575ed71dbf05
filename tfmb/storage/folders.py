"""Whether a folder can hold a run, a search or an export: asked before hours are spent on what goes there."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tfmb.errors import DirectoryError

__all__ = ["PROBE", "check_name", "naming", "probe", "sync"]

PROBE = ".tmp-probe-"
# A look takes milliseconds: what is older is of a process that was killed.
_LEFT_OVER_SECONDS = 60.0
# `Path` makes one slash of two.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def check_name(path: str | Path, option: str) -> None:
    """Refuses a text that is no name of a folder of this machine, or one that TensorFlow cannot write into.

    Args:
        path: as the user gave it.
        option: the user's name for it.

    Raises:
        DirectoryError: it is an address, no UTF-8, or empty.
    """
    text = str(path)
    if _ADDRESS.match(text):
        raise DirectoryError(
            f"{text} is an address: give {option} a folder that this machine has mounted, and copy it there afterwards"
        )
    if not text.strip() or "\0" in text:
        raise DirectoryError(f"{text!r} names no folder: give another {option}")
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError as error:
        raise DirectoryError(f"{text!a} is no UTF-8, which TensorFlow's files need: give another {option}") from error


def probe(folder: Path) -> None:
    """Checks that locks, renames and syncs hold in a folder; the check leaves nothing behind.

    A run rests on them: on a file system without them (some network and cloud drives) two processes could write one
    run, and a checkpoint that was reported could be lost or torn.

    Args:
        folder: exists, and can be written.

    Raises:
        DirectoryError: one of them does not.
    """
    _remove_leftovers(folder)
    place = folder / f"{PROBE}{uuid.uuid4().hex}"
    what = "a folder cannot be made"
    try:
        place.mkdir()
        what = "locks do not hold"
        _check_lock(place / "lock")
        what = "a file cannot be synced to the disk"
        _write(place / "a", b"a")
        _write(place / "b", b"b")
        what = "a file cannot take the place of another"
        os.replace(place / "a", place / "b")
        if (place / "b").read_bytes() != b"a" or (place / "a").exists():
            raise OSError(errno.EIO, "it is there, but another one")
        what = "a folder cannot be renamed"
        (place / "c").mkdir()
        (place / "c").rename(place / "d")
        if not (place / "d").is_dir() or (place / "c").exists():
            raise OSError(errno.EIO, "it has both names, or none")
        what = "the names in a folder cannot be synced to the disk"
        sync(place)
        sync(folder)
    except OSError as error:
        raise DirectoryError(
            f"{folder}: {what} there ({error.strerror or error}): what is saved could be lost; "
            "give a directory on another file system"
        ) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives an `OSError` that names no file the name of the one that is written."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(f"{PROBE}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _LEFT_OVER_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _check_lock(path: Path) -> None:
    """Two descriptors: the second must not get what the first one has.

    Raises:
        OSError: it does, or there are no locks.
    """
    first = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        second = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            raise OSError(errno.ENOLCK, "two have the same one")
        finally:
            os.close(second)
    finally:
        os.close(first)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Makes a file's bytes durable, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
