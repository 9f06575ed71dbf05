"""`NAME/<version>/`: the numbered folders that TensorFlow Serving looks for; each appears whole or not at all."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from tfmb.errors import ConfigError, DataError, DirectoryError
from tfmb.storage.folders import sync

__all__ = ["check_is_no_version", "newest_version", "publish", "temporary_in", "version_before"]

_VERSION = re.compile(r"[0-9]{1,18}")  # what fits TensorFlow Serving's 64 bits
_TEMPORARY = ".tmp-"
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)


def check_is_no_version(folder: Path) -> None:
    """Refuses a model's folder that is a finished export, or lies in one: new files would damage it.

    Raises:
        ConfigError: it is.
    """
    place = folder.expanduser().resolve()
    for version in (place, *place.parents):
        if (version / "saved_model.pb").exists():
            where = "is" if version == place else f"lies in {version}, which is"
            raise ConfigError(
                f"{folder} {where} a finished export, and a new version in it would damage it: give the model's "
                f"folder, {version.parent}, which gets the next version"
            )


@contextlib.contextmanager
def temporary_in(folder: Path) -> Iterator[Path]:
    """Gives a new folder in a model's folder. Unpublished ones are removed, those of exports that died too.

    Raises:
        DirectoryError: it cannot be made.
    """
    temporary = folder / f"{_TEMPORARY}{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # While one begins no other looks for leftovers: what is made here would be taken for one.
        with _locked(folder), contextlib.ExitStack() as stack:
            _remove_leftovers(folder)
            temporary.mkdir()
            stack.enter_context(_locked(temporary))
            held = stack.pop_all()
    except OSError as error:
        raise DirectoryError(f"{folder} cannot be made or written ({error.strerror}): give another folder") from error
    with held:
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def publish(temporary: Path, folder: Path) -> Path:
    """Gives a finished export the next free version number; nothing that is there is replaced.

    Raises:
        OSError: the disk fails.
    """
    for path in sorted(temporary.rglob("*")):
        sync(path)
    sync(temporary)
    while True:
        target = folder / str(max((int(path.name) for path in _versions(folder)), default=0) + 1)
        try:
            temporary.rename(target)  # fails where another process was first, whose folder is not empty
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
            continue
        sync(folder)
        return target


def newest_version(folder: Path) -> Path:
    """The folder itself where it holds a SavedModel, else its highest version that does.

    Raises:
        DataError: there is none.
    """
    if (folder / "saved_model.pb").is_file():
        return folder
    if (newest := _newest_in(folder)) is None:
        raise DataError(f"{folder} holds no SavedModel: give a folder that `tfmb export` made")
    return newest


def version_before(against: str | Path, folder: Path) -> Path:
    """Returns the version to compare a new version with.

    Args:
        against: `latest` for the highest version in `folder`, else the folder of a version, or of a model.
        folder: the model's.

    Raises:
        ConfigError: `latest`, and there is none.
        DataError: there is no SavedModel.
    """
    if str(against) != "latest":
        return newest_version(Path(against).expanduser())
    if (newest := _newest_in(folder)) is None:
        raise ConfigError(f"--against latest: {folder} holds no version yet: leave --against out")
    return newest


def _newest_in(folder: Path) -> Path | None:
    versions = [path for path in _versions(folder) if (path / "saved_model.pb").is_file()]
    return max(versions, key=lambda path: int(path.name), default=None)


def _versions(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if _VERSION.fullmatch(path.name)]


def _remove_leftovers(folder: Path) -> None:
    """Removes the leftovers of killed exports; those of live processes are locked."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        if path.is_symlink() or not path.is_dir():
            continue
        with (
            contextlib.suppress(OSError),
            _locked(path, fcntl.LOCK_NB, os.O_NOFOLLOW),
        ):  # else it is locked, gone, or not ours
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, mode: int = 0, flags: int = 0) -> Iterator[None]:
    """Holds a folder's advisory lock, which dies with the process; `mode` and `flags` are of `flock` and `open`.

    Raises:
        OSError: it cannot be opened, or another holds it and `mode` is not to wait.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | mode)
        yield
    finally:
        os.close(descriptor)
