"""What a script's shell blocks fetch: published scripts have them in strings, which do nothing when they are run."""

import os
import re
import shutil
import tarfile
import urllib.error
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["fetch"]


def fetch(script: str, retrieve: Callable[[str, Path], Any]) -> None:
    """Fetches each address of a script's shell blocks into the working directory, and unpacks the archives.

    Args:
        script: its text.
        retrieve: as `urllib.request.urlretrieve`.
    """
    blocks = re.findall(r'^"""shell\n(.*?)"""', script, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [line.lstrip("! ") for line in script.splitlines() if line.startswith(("!curl", "!wget"))]
    for line in lines:
        for address in re.findall(r"https?://[^\s\"']+", line):
            name = re.search(r"-[oO] +([^\s-]\S*)", line)
            path = Path(name[1] if name and "://" not in name[1] else os.path.basename(address))
            try:
                retrieve(address, path)
            except urllib.error.URLError:
                continue  # the script then says what it misses
            if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
                shutil.unpack_archive(path, format="zip" if zipfile.is_zipfile(path) else None)
