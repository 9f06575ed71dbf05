"""One script in a process of its own, which has TensorFlow loaded already, with Keras or with us."""

import importlib
import json
import os
import runpy
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ended", "load", "run_script"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Ended:
    """How a run of a script ended.

    Attributes:
        code: its exit code; None where it ran past the limit.
        calls: of fit, evaluate and predict, in their order: what each gave, or its error.
        said: the last line that it wrote to standard error.
        seconds: that it took.
    """

    code: int | None
    calls: list[dict[str, Any]]
    said: str
    seconds: float

    @property
    def trained(self) -> bool:
        """Whether a fit was ended."""
        return any(call["call"] == "fit" and "error" not in call for call in self.calls)


def load() -> None:
    """Imports what most scripts import, once: each run is a fork of this process."""
    for name in ("tensorflow", "keras", "tensorflow_datasets", "matplotlib"):
        importlib.import_module(name)


def run_script(script: Path, ours: bool, limit: float) -> Ended:
    """Runs a script in a fork of this process, from an empty folder, without a network.

    Args:
        script: its path.
        ours: whether under `tfmb run --strict`.
        limit: the seconds after which it is stopped.
    """
    with tempfile.TemporaryDirectory() as name:
        calls, errors = Path(name, "calls.jsonl"), Path(name, "errors.txt")
        start = time.monotonic()
        child = os.fork()
        if not child:
            _be(["shim.py", str(calls), str(script.resolve())], ours, Path(name), errors)
        code = _wait(child, start + limit)
        seconds = round(time.monotonic() - start, 1)
        lines = [line for line in errors.read_text(errors="replace").splitlines() if line.strip()]
        noted = [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
    return Ended(code, noted, lines[-1][:400] if lines else "", seconds)


def _wait(child: int, until: float) -> int | None:
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _be(program: list[str], ours: bool, folder: Path, errors: Path) -> None:
    """Is the script's process, which ends here."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        path = str(_HERE / program[0])
        code = _run_ours([path, *program[1:]]) if ours else _run_keras([path, *program[1:]])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run_keras(program: list[str]) -> int:
    sys.argv = program
    runpy.run_path(program[0], run_name="__main__")
    return 0


def _run_ours(program: list[str]) -> int:
    from tfmb.cli import main

    return int(main(["run", "--strict", *program]) or 0)
