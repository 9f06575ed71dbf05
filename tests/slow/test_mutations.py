"""The tests of checkpoints can fail: each of some faults, planted in a copy of the package, turns them red."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fork_server import needs_strace

ROOT = Path(__file__).parents[2]
RESUME = ["tests/training/test_resume.py", "-k", "test_two_stops_in_one_epoch"]
COMMIT = ["tests/storage/test_atomic.py", "-k", "nothing"]
SYNCED = ["tests/storage/test_atomic.py", "-k", "synced"]

CHECKPOINT, FOLDERS = "tfmb/training/checkpoint/checkpointer.py", "tfmb/storage/atomic.py"
ASSIGN = "            variable.assign(tensors[key])\n"

# Fault -> (file, what stands there once, what to put there), ..., and the tests that must notice.
FAULTS: dict[str, tuple[list[tuple[str, str, str]], list[str]]] = {
    "slots are not restored": ([(CHECKPOINT, ASSIGN, f"            if key[:9] != 'optimizer':\n    {ASSIGN}")], RESUME),
    "seed states are not restored": (  # the only whole numbers of the model
        [(CHECKPOINT, ASSIGN, f"            if key[:5] != 'model' or tensors[key].dtype != 'int64':\n    {ASSIGN}")],
        RESUME,
    ),
    "one batch is skipped": (
        [(CHECKPOINT, "asdict(position),", '{**asdict(position), "step": position.step + 1},')],
        RESUME,
    ),
    "files are not synced": ([(FOLDERS, "            sync(file)\n", "            pass\n")], SYNCED),
    "nothing is synced": ([(FOLDERS, "        os.fsync(descriptor)\n", "        pass\n")], SYNCED),
    "nothing is renamed": (
        [
            (FOLDERS, 'path.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"', "path"),
            (FOLDERS, "        if path.exists():\n", "        if False:\n"),
            (FOLDERS, "        temporary.rename(path)\n", "        pass\n"),
        ],
        COMMIT,
    ),
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package and its tests."""
    for name in ("tfmb", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def run(package: Path, tests: list[str]) -> "subprocess.CompletedProcess[str]":
    """Runs tests of a copy, on the code of that copy."""

    def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=package,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    found = python("-c", "import tfmb.storage.atomic as commit; print(commit.__file__)")
    assert found.stdout.strip() == str(package / "tfmb" / "training" / "commit.py"), found.stderr
    every = "--override-ini=addopts=--strict-markers"  # whatever their marks
    return python("-m", "pytest", "-q", "-x", every, "-p", "no:cacheprovider", "-p", "no:xdist", *tests)


@pytest.mark.parametrize("tests", [RESUME, COMMIT, SYNCED], ids=["resume", "commit", "synced"])
def test_without_a_fault_they_pass(package: Path, tests: list[str]) -> None:
    done = run(package, tests)
    assert done.returncode == 0, done.stdout[-3000:]


@needs_strace()
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_turns_them_red(package: Path, fault: str) -> None:
    changes, tests = FAULTS[fault]
    for name, old, new in changes:
        text = (package / name).read_text()
        assert text.count(old) == 1, (name, old)
        (package / name).write_text(text.replace(old, new))
    done = run(package, tests)
    assert done.returncode == 1, done.stdout[-3000:]
    assert re.search(r"\b1 failed\b", done.stdout), done.stdout[-3000:]
    assert "ImportError" not in done.stdout
    assert "SyntaxError" not in done.stdout
    print(f"\n{fault}: {next(line for line in done.stdout.splitlines() if line.startswith('FAILED'))}")
