"""Downloads, answered with made-up files of the same names and shapes."""

import io
import os
import sys
import urllib.error
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import made_up_archives
import made_up_arrays
import made_up_tables
from weights import MADE_UP

__all__ = ["answer_from_made_up_files"]

_MAKERS: dict[str, Callable[[], bytes]] = {
    **made_up_arrays.MAKERS,
    **made_up_tables.MAKERS,
    **made_up_archives.MAKERS,
}


def answer_from_made_up_files() -> None:
    """Replaces what fetches a file: of the standard library, and Keras's checks of what was fetched."""
    import urllib.request

    fetches: Any = urllib.request
    fetches.urlopen = _open
    fetches.urlretrieve = _retrieve
    import keras.src.utils.file_utils as of_keras

    of_keras.urlretrieve = _retrieve
    of_keras.validate_file = lambda *_, **__: True
    from_drive: Any = ModuleType("gdown")  # which names no file: what it is to be called decides
    from_drive.download = lambda url, output, **_: Path(output).write_bytes(_MAKERS[str(output)]())
    sys.modules["gdown"] = from_drive


def _answer(url: str) -> bytes:
    """The bytes of a file.

    Raises:
        URLError: none is made up for it.
    """
    name = os.path.basename(urllib.parse.urlparse(url).path)
    if name in _MAKERS:
        return _MAKERS[name]()
    if name.endswith((".h5", ".weights.h5", ".hdf5")):
        return MADE_UP
    if name.lower().endswith((".png", ".jpg", ".jpeg")):
        return made_up_archives.image(320, 240)
    raise urllib.error.URLError(f"no made-up file for {url}")


class _Response(io.BytesIO):
    """What `urlopen` gives, as far as pandas looks at it."""

    status = 200

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.headers: dict[str, str] = {}


def _open(request: Any, *_: Any, **__: Any) -> Any:
    url = request if isinstance(request, str) else request.full_url
    return _Response(_answer(url))


def _retrieve(url: str, filename: Any = None, *_: Any, **__: Any) -> tuple[str, dict[str, str]]:
    path = Path(filename or os.path.basename(urllib.parse.urlparse(url).path))
    path.write_bytes(_answer(url))
    return str(path), {}
