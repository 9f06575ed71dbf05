"""Directories that appear whole or not at all: written beside their place, checksummed, synced, renamed, synced.

The protocol: a temporary folder in the same parent; the files; a manifest with their sizes and SHA-256; fsync of every
file and of the folder; rename; fsync of the parent. Only then is it said to be saved. No pointer file can lie: a folder
with a final name was whole when it got the name.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.errors import DataError, first_line
from tfmb.storage.files import read_plain, sha256_of
from tfmb.storage.folders import naming, sync

__all__ = ["MANIFEST", "UnreadableError", "commit_folder", "remove_temporary", "verify_folder", "write_arrays"]

MANIFEST = "MANIFEST.json"
FORMAT = 1
_TEMPORARY = ".tmp-"
_MOST_MANIFEST_BYTES = 64 * 2**20


class UnreadableError(DataError):
    """The file is undamaged, but this version of tfmb cannot read it: it is never set aside."""


def commit_folder(path: Path, write: Callable[[Path], None], about: dict[str, Any], *, replaces: bool = False) -> None:
    """Makes a new folder with the files that `write` puts in it, whole or not at all.

    Args:
        path: its final name; must not exist, unless it `replaces` a folder.
        write: puts files (no folders) into the folder it is given.
        about: the manifest's entries besides the files.
        replaces: whether a folder of that name is removed when the new one is whole.

    Raises:
        OSError: the disk is full, or `path` exists and is not replaced; nothing is left over where it can be removed.
    """
    temporary = path.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        write(temporary)
        files = {
            file.name: {"size": file.stat().st_size, "sha256": sha256_of(file)} for file in sorted(temporary.iterdir())
        }
        manifest: dict[str, Any] = {"format": FORMAT, "files": files, **about}
        manifest["sha256"] = _hash_of(manifest)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        for file in sorted(temporary.iterdir()):
            sync(file)
        sync(temporary)
        if replaces and path.exists():
            shutil.rmtree(path)
        if path.exists():
            raise FileExistsError(17, "it exists already", str(path))
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, its own form checked.

    Raises:
        DataError: it is missing, too large, of another format, or no manifest.
    """
    path = folder / MANIFEST
    try:
        # Written by us with the numbers of a training, some of which may not be finite.
        manifest = json.loads(read_plain(path, _MOST_MANIFEST_BYTES, follow=False))
        known = isinstance(manifest, dict) and manifest.pop("sha256", None) == _hash_of(manifest)
    except (OSError, ValueError, RecursionError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or first_line(error)
        raise DataError(f"{path} cannot be read ({reason}): the folder is damaged") from error
    if not known:
        raise DataError(f"{path} does not match its own SHA-256: the folder is damaged")
    if manifest.get("format") != FORMAT:
        raise UnreadableError(
            f"{path}: format {manifest.get('format')!r} is not {FORMAT}: it is of another version of tfmb; "
            "go on with that one"
        )
    if not isinstance(manifest.get("files"), dict):
        raise DataError(f"{path} is no manifest: the folder is damaged")
    return manifest


def verify_folder(folder: Path) -> dict[str, Any]:
    """Compares every file of a folder with its manifest, and returns that.

    Raises:
        DataError: a file is missing, more, no plain file, or not as it was written.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise DataError(f"{folder} is no folder: it is damaged")
    manifest = _read_manifest(folder)
    files = manifest["files"]
    found = {entry.name for entry in folder.iterdir()} - {MANIFEST}
    if found != set(files):
        odd = sorted(found ^ set(files))[0]
        raise DataError(f"{folder}: {odd!r} is {'more' if odd in found else 'missing'}: the folder is damaged")
    for name, about in files.items():
        path = folder / name
        try:
            known = isinstance(about, dict) and path.lstat().st_size == about.get("size")
            if not known or sha256_of(path, follow=False) != about.get("sha256"):
                raise DataError(f"{path} is not as it was written (size or SHA-256): the folder is damaged")
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}): the folder is damaged") from error
    return manifest


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Writes arrays by name into an NPZ file, whole or not at all.

    Raises:
        OSError: the disk is full, or the folder is missing.
    """
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    with naming(temporary), temporary.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def remove_temporary(parent: Path) -> None:
    """Removes the leftovers of writes that were cut off."""
    for path in parent.glob(f"{_TEMPORARY}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _hash_of(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
