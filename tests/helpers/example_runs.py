"""Runs the scripts in `examples/` in this process, and looks at what they print."""

import contextlib
import io
import re
import runpy
import sys
from pathlib import Path
from unittest import mock

EXAMPLES = Path(__file__).parents[2] / "examples"


def printed(name: str, *arguments: str) -> str:
    """What a script writes to standard output."""
    with contextlib.redirect_stdout(io.StringIO()) as shown, mock.patch.object(sys, "argv", [name, *arguments]):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return shown.getvalue()


def number_after(words: str, text: str) -> float:
    """The number that stands behind some words."""
    found = re.search(rf"{words} (\d\.\d+)", text)
    assert found, text
    return float(found[1])
