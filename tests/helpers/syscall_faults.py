"""Every system call of some saves that changes a disk, made to fail or to be the last one, with strace."""

import atexit
import functools
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import tiny_run
from fork_server import Ended, ForkServer, calls

__all__ = ["FAULTS", "SAVES", "Durability", "Point", "inject", "points", "prepare"]

SAVES = 3  # the first one makes the folder, the last one removes the first
TRACE = ["-e", "trace=/^(rename|unlink|mkdir|rmdir|fsync|fdatasync|write$|pwrite|ftruncate)"]
FAULTS = {"SIGKILL": "signal=SIGKILL", "ENOSPC": "error=ENOSPC", "EIO": "error=EIO"}


@dataclass(frozen=True)
class Point:
    """One fault.

    Attributes:
        call: the system call.
        number: which of them, from 1.
        fault: a key of `FAULTS`.
        start: what the run finds: "nothing", or "leftovers" of a save that was cut off and a damaged checkpoint.
    """

    call: str
    number: int
    fault: str
    start: str


def prepare(run_dir: Path, start: str) -> None:
    """Makes a run's directory as the process to be hurt shall find it."""
    run_dir.mkdir()
    if start == "leftovers":
        shutil.copytree(_leftovers(), run_dir, dirs_exist_ok=True)


@functools.cache
def _leftovers() -> Path:
    run_dir = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, run_dir)
    run = tiny_run.TinyRun(run_dir)
    run.save(1)
    run.save(2)
    run.keeper.close()
    older, newest = sorted((run_dir / "checkpoints").glob("step-*"))
    shutil.copytree(older, run_dir / "checkpoints" / ".tmp-cut-off")
    (newest / "state.index").write_bytes(b"")
    return run_dir


def points(server: ForkServer, folder: Path, start: str) -> list[Point]:
    """All faults of a run that saves until it has `SAVES`, found by a dry run."""
    prepare(folder, start)
    ended = server.call("tiny_run:save", str(folder), SAVES, strace=TRACE)
    assert (ended.code, tiny_run.acknowledged(ended.output)) == (0, SAVES), ended.error
    return [
        Point(call, number, fault, start)
        for call, count in calls(ended.trace).items()
        for number in range(1, count + 1)
        for fault in FAULTS
    ]


def inject(server: ForkServer, folder: Path, point: Point) -> str:
    """Hurts a run, starts it again, and checks that nothing is torn, lost or left over.

    Returns:
        How the process that was hurt ended: "killed", "refused" (74) or "went on".
    """
    run_dir = folder / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    prepare(run_dir, point.start)
    option = f"inject={point.call}:{FAULTS[point.fault]}:when={point.number}"
    ended = server.call("tiny_run:save", str(run_dir), SAVES, strace=[*TRACE, "-e", option])
    outcome = _outcome(ended, point)
    saved = max(tiny_run.acknowledged(ended.output), 1 if point.start == "leftovers" else 0)
    assert tiny_run.restore(run_dir) >= saved, (point, ended)
    # With room again, the run goes on to its end.
    run = tiny_run.TinyRun(run_dir)
    run.keeper.restore()
    run.save(SAVES + 1)
    run.keeper.close()
    assert tiny_run.restore(run_dir) == SAVES + 1, point
    assert len(list((run_dir / "checkpoints").glob("step-*"))) <= 2, point
    return outcome


def _outcome(ended: Ended, point: Point) -> str:
    assert not ended.hung, (point, ended)
    if point.fault == "SIGKILL":
        assert ended.code == -9, (point, ended)
        return "killed"
    assert any("(INJECTED)" in line for line in ended.trace), (point, ended)
    if ended.code == 0:
        assert tiny_run.acknowledged(ended.output) == SAVES, (point, ended)
        # What may fail in silence: the removal of what is old, for the next start removes it; and to make a folder
        # that is there.
        hurt = next(line for line in ended.trace if "(INJECTED)" in line)
        assert point.call in ("unlink", "unlinkat", "rmdir", "mkdir"), (point, hurt)
        return "went on"
    assert ended.code == 74, (point, ended)
    return "refused"


@dataclass
class Durability:
    """What a loss of power could take, from strace's lines: bytes and names that are not synced.

    Attributes:
        files: files written to and not synced since.
        names: names made in a folder that was not synced since.
        known: files that were there before, so that opening them makes no name.
        synced: how many files and folders were synced.
    """

    files: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    synced: int = 0

    def follow(self, line: str) -> tuple[str, str]:
        """Takes up one line; returns what was renamed, or two empty strings."""
        call = re.search(r"\b(\w+)\(.*\) += \d+", line)  # those that succeeded
        paths = re.findall(r'"([^"]*)"', line)
        opened = re.search(r"\(\d+<([^>]*)>", line)
        match call.group(1) if call else "":
            case "openat" if "O_CREAT" in line and paths[0] not in self.known:
                self.names.add(paths[0])
                self.known.add(paths[0])
            case "mkdir":
                self.names.add(paths[0])
            case "write" | "pwrite64" if opened:
                self.files.add(opened.group(1))
            case "fsync" if opened:
                self._synced(opened.group(1))
            case "unlink" | "rmdir":
                self._forget(paths[0])
            case "unlinkat" if opened:
                self._forget(f"{opened.group(1)}/{paths[0]}")
            case "rename":
                self._renamed(*paths)
                return paths[0], paths[1]
        return "", ""

    def at_risk(self, folder: str) -> set[str]:
        """What could be lost below a folder."""
        return {path for path in self.files | self.names if path.startswith(f"{folder}/")}

    def _synced(self, path: str) -> None:
        self.synced += 1
        self.files.discard(path)
        self.names = {name for name in self.names if str(Path(name).parent) != path}

    def _forget(self, path: str) -> None:
        self.files.discard(path)
        self.names.discard(path)

    def _renamed(self, old: str, new: str) -> None:
        def moved(path: str) -> str:
            return new + path.removeprefix(old) if path == old or path.startswith(f"{old}/") else path

        self.files, self.names = {moved(path) for path in self.files}, {moved(path) for path in self.names}
        self.names.add(new)
