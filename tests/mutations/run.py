"""Plants each fault in a copy of the package and runs a suite on it, until a test fails."""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from mutations.planted import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
# A room's tests take less than two minutes in the default suite; all suites less than 25.
_NEAR_SECONDS, _WHOLE_SECONDS = 600, 2400
MARKS = {"default": [], "all": ["-m", "not slow"]}


def copy_to(folder: Path) -> None:
    """Copies what tests need of the repository."""
    for name in ("tfmb", "tuning", "tests", "docs", "examples", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for path in ROOT.glob("*.*"):
        if path.is_file():
            shutil.copy(path, folder)


def check_that_it_can_be_collected() -> None:
    """Raises where the tests cannot be collected as they are: every fault would then seem to be found.

    Raises:
        RuntimeError: what pytest says.
    """
    with tempfile.TemporaryDirectory() as name:
        copy_to(Path(name))
        done = _pytest(Path(name), ["--collect-only", "tests"], _NEAR_SECONDS)
    if done.returncode:
        raise RuntimeError(done.stdout[-1000:])


def plant(mutation: Mutation, folder: Path) -> None:
    """Changes a file of a copy.

    Raises:
        ValueError: what is to be changed does not stand there once.
    """
    path = folder / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.file} has {text.count(mutation.old)} times {mutation.old!r}")
    path.write_text(text.replace(mutation.old, mutation.new))


def killer(folder: Path, tests: str, marks: list[str], seconds: float) -> str | None:
    """The first test of a copy that fails, or that it hangs; None where all pass."""
    try:
        done = _pytest(folder, ["-x", "-n", "2", *marks, tests], seconds)
    except subprocess.TimeoutExpired:
        return f"it hangs: {tests} was not over in {seconds:.0f} s"
    if done.returncode in (0, 5):  # 5: no test of that mark
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return failed[1] if failed else f"rc {done.returncode}: {done.stdout[-300:]}"


def _pytest(folder: Path, arguments: list[str], seconds: float) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("TFMB_MNIST_MIRROR", str(ROOT.parent / "shared" / "data" / "mnist"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", *arguments]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as started:
        try:
            out, _ = started.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)  # pytest's own processes too
            raise
    return subprocess.CompletedProcess(command, started.returncode, out, "")


def main() -> None:
    """Prints a line a fault; ends with 1 where one was not found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", choices=MARKS, default="default")
    parser.add_argument("--only", default="", help="part of the names of faults")
    options = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if options.only in mutation.name]
    check_that_it_can_be_collected()
    killed = 0
    for mutation in chosen:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            copy_to(folder)
            plant(mutation, folder)
            marks = MARKS[options.suite]
            found = killer(folder, mutation.near, marks, _NEAR_SECONDS)
            found = found or killer(folder, "tests", marks, _WHOLE_SECONDS)
        killed += found is not None
        print(f"{'killed  ' if found else 'SURVIVED'} {mutation.name}: {found or 'all tests pass'}", flush=True)
    print(f"{killed} of {len(chosen)} killed by the suite {options.suite!r}")
    sys.exit(killed < len(chosen))


if __name__ == "__main__":
    main()
