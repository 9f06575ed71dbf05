"""The needs of a command at its end, checked at its start: before anything is measured or trained."""

import importlib
import tempfile
from pathlib import Path

from tfmb.errors import ConfigError, DirectoryError
from tfmb.storage.folders import check_name, probe

__all__ = ["PAGE_MODULES", "need_folder", "need_modules", "need_page"]

# What draws a page's charts.
PAGE_MODULES = {"plotly.graph_objects": "plotly"}


def need_modules(what: str, modules: dict[str, str]) -> None:
    """Imports what will be needed.

    Args:
        what: needs them, for the message.
        modules: by their name, the package that brings each.

    Raises:
        ConfigError: one cannot be imported.
    """
    for module, package in modules.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"{what} needs {package} ({error}): pip install {package}") from error


def need_page(option: str, path: str | Path) -> Path:
    """The path of a page that can be drawn and written there.

    Args:
        option: the user's name for it.
        path: as it was given.

    Raises:
        ConfigError: nothing that draws it is installed, it names no file, or its folder cannot be written.
    """
    page = Path(path).expanduser()
    hint = "give a file in a folder that can be written, such as advice.html"
    if not str(path).strip():
        raise ConfigError(f"{option} {str(path)!r} names no file: {hint}")
    try:
        if page.exists() and not page.is_file():
            raise ConfigError(f"{option} {path} is no file: {hint}")
        _try_to_write(page.parent)
        page.is_symlink()  # refuses a name that is too long
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ConfigError(f"{option} {path} cannot be written ({reason}): {hint}") from error
    need_modules(f"{option} {path}: a page with charts", PAGE_MODULES)
    return page


def need_folder(option: str, path: str | Path) -> None:
    """Checks that a folder can be made, or written if it exists, and keeps files that are saved in it: see `probe`.

    Args:
        option: the user's name for it.
        path: the folder.

    Raises:
        DirectoryError: it cannot be made or written, or does not keep saved files.
    """
    check_name(path, option)
    try:
        folder = Path(path).expanduser()
        while not folder.exists():
            folder = folder.parent
        _try_to_write(folder)
        probe(folder)
    except DirectoryError:
        raise
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DirectoryError(f"{path} cannot be made or written ({reason}): give another {option}") from error


def _try_to_write(folder: Path) -> None:
    """Makes a file without a name there: permissions alone do not reveal a disk that is full or read-only.

    Raises:
        OSError: it cannot be made.
    """
    with tempfile.TemporaryFile(dir=folder):
        pass
