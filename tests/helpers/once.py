"""Folders that are made once for the whole run of the tests, and not once in each of pytest's processes."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["made_once"]


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills in the first process that asks for it; the others wait, and must only read it.

    Args:
        factory: pytest's.
        name: of the folder, the same for all who share it.
        make: fills an empty folder.
    """
    # pytest-xdist gives each process a folder in that of the run.
    base = factory.getbasetemp()
    root = base.parent if base.name.startswith("popen-") else base
    folder, done = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
