"""A program under `tfmb run` and under `python`: the same arguments, search path, output, errors and exit code.

These programs do not import Keras, so neither does tfmb.
"""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

SCRIPT = """\
import __main__
import os
import sys
import warnings

number: int = 3
print(sys.argv, sys.path[0], __file__, __name__, __package__, __spec__, __doc__, sorted(globals()))
print(__main__.number, sys.excepthook is sys.__excepthook__, type(__loader__).__name__)
warnings.warn("a warning of the program")
what = sys.argv[1] if len(sys.argv) > 1 else ""


def fail():
    raise KeyError("a key")


class Odd(Exception):
    pass


if what == "fails":
    try:
        fail()
    except KeyError as error:
        raise Odd("ä") from error
if what == "hook":
    sys.excepthook = lambda kind, error, trace: print("hook", kind, error, trace.tb_frame.f_code.co_filename)
    fail()
if what == "text":
    sys.exit("some text")
if what == "code":
    sys.exit(7)
if what == "none":
    sys.exit()
if what == "interrupt":
    raise KeyboardInterrupt
if what == "os":
    open("/nowhere/at/all")
if what == "end of file":
    input()
if what == "exit":
    os._exit(9)
if what == "late":
    import atexit

    atexit.register(lambda: print("late", __main__.number, fail.__module__))
assert "tensorflow" not in sys.modules
assert "keras" not in sys.modules
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    (folder / "script.py").write_text(SCRIPT)
    (folder / "syntax.py").write_text("x = (\n")
    (folder / "future.py").write_text("from __future__ import annotations\nprint(1)\ny: nothing = 1\n")
    (folder / "link.py").symlink_to(folder / "inner" / "linked.py")
    (folder / "inner").mkdir()
    (folder / "inner" / "linked.py").write_text("import beside\n")
    (folder / "inner" / "beside.py").write_text("print(__file__)\n")
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "module.py").write_text(SCRIPT)
    (folder / "package" / "broken.py").write_text("import package.nothing\n")
    (folder / "with_main").mkdir()
    (folder / "with_main" / "__main__.py").write_text("import sys\nprint(sys.path[0], __name__, sys.argv[1:])\n")
    (folder / "empty").mkdir()
    return folder


CASES = {
    "script": ["script.py"],
    "arguments": ["./script.py", "", "--help", "--seed", "1", "--", "-m", "x"],
    "error": ["script.py", "fails"],
    "hook": ["script.py", "hook"],
    "text": ["script.py", "text"],
    "code": ["script.py", "code"],
    "none": ["script.py", "none"],
    "interrupt": ["script.py", "interrupt"],
    "file": ["script.py", "os"],
    "end of file": ["script.py", "end of file"],
    "exit": ["script.py", "exit"],
    "late": ["script.py", "late"],
    "syntax": ["syntax.py"],
    "future": ["future.py"],
    "link": ["link.py"],
    "missing": ["missing.py"],
    "module": ["-m", "package.module", "--help"],
    "module fails": ["-m", "package.module", "fails"],
    "module text": ["-m", "package.module", "text"],
    "module missing": ["-m", "package.missing"],
    "package": ["-m", "package"],
    "module broken": ["-m", "package.broken"],
    "folder": ["with_main", "a", "-b"],
    "empty folder": ["empty"],
}


@pytest.mark.parametrize("case", CASES)
def test_as_under_python(case: str, folder: Path) -> None:
    theirs, ours = (ended([*command, *CASES[case]], folder) for command in ([], ["-m", "tfmb", "run"]))
    assert ours.returncode == theirs.returncode
    assert plain(ours.stdout) == plain(theirs.stdout)
    assert plain(ours.stderr) == plain(theirs.stderr)


def test_an_interrupt_ends_it_as_it_ends_python(folder: Path) -> None:
    assert ended(["-m", "tfmb", "run", "script.py", "interrupt"], folder).returncode == -signal.SIGINT


def test_as_under_python_with_a_safe_path(folder: Path) -> None:
    theirs, ours = (ended(["-P", *command, "link.py"], folder) for command in ([], ["-m", "tfmb", "run"]))
    assert "No module named 'beside'" in ours.stderr
    assert plain(ours.stderr) == plain(theirs.stderr)


def ended(words: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False
    )


def plain(text: str) -> str:
    """Without addresses, and without the frames of `runpy`, by which `python -m` has begun."""
    text = re.sub(r'  File "<frozen runpy>".*\n', "", text)
    return re.sub(r"0x[0-9a-f]+", "0x", text)
