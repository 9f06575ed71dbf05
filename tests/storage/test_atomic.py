"""Saves that are cut off or fail at any step: nothing torn, nothing lost that was acknowledged, nothing left over."""

import contextlib
import errno
import os
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forged
import pytest
import syscall_faults
import tiny_run
from fork_server import ForkServer, needs_strace
from syscall_faults import SAVES, Durability

from tfmb.cli import main
from tfmb.errors import StorageError
from tfmb.runs.run_dir import create_run_dir
from tfmb.training.checkpoint import checkpointer


class _Killed(BaseException):
    """The process ended here."""


class _Disk:
    """Counts what a save does to the disk, and goes wrong at one step of it.

    Attributes:
        at: the step that goes wrong, from 1; 0 for none.
        how: "killed before" or "killed after" it, after which nothing reaches the disk, or an error's name.
        only: whether a step counts, by its paths.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.at, self.how, self.steps, self.dead = 0, "", 0, False
        self.only: Callable[[str], bool] = lambda path: True
        steps: list[tuple[Any, str]] = [(os, name) for name in ("mkdir", "rename", "unlink", "rmdir", "fsync")]
        for owner, name in [*steps, (Path, "write_text"), (Path, "touch"), (checkpointer, "write_bundle")]:
            patch.setattr(owner, name, self._hurt(getattr(owner, name)))

    def fail(self, at: int, how: str) -> None:
        self.at, self.how, self.steps, self.dead = at, how, 0, False

    def heal(self) -> None:
        self.at, self.dead = 0, False

    @property
    def fired(self) -> bool:
        return 0 < self.at <= self.steps

    def _hurt(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def hurt(*arguments: Any, **options: Any) -> Any:
            if self.dead:
                raise _Killed
            path = os.readlink(f"/proc/self/fd/{arguments[0]}") if step is os_fsync else str(arguments[0])
            self.steps += self.only(path)
            if self.steps != self.at or not self.only(path):
                return step(*arguments, **options)
            if self.how.startswith("killed"):
                self.dead = True
                with contextlib.suppress(OSError):
                    if self.how == "killed after":
                        step(*arguments, **options)
                raise _Killed
            code = getattr(errno, self.how)
            raise OSError(code, os.strerror(code))

        return hurt


os_fsync = os.fsync


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> _Disk:
    return _Disk(monkeypatch)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with ForkServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("start", ["nothing", "leftovers"])
@pytest.mark.parametrize("how", ["killed before", "killed after", "ENOSPC", "EIO"])
def test_every_step_of_some_saves(tmp_path: Path, disk: _Disk, how: str, start: str) -> None:
    for at in range(1, 1000):
        run_dir = tmp_path / str(at)
        syscall_faults.prepare(run_dir, start)
        run, saved, ended = tiny_run.TinyRun(run_dir), 1 if start == "leftovers" else 0, ""
        disk.fail(at, how)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*set aside")
            try:
                found = run.keeper.restore()
                for drawn in range(1 if found is None else found.drawn + 1, SAVES + 1):
                    run.save(drawn)
                    saved = drawn
            except (_Killed, OSError, StorageError) as error:
                ended = type(error).__name__
            fired = disk.fired
            disk.heal()
            run.keeper.close()
            found_after = tiny_run.restore(run_dir)
        assert found_after >= saved, (at, how, ended)
        if not fired:
            break
        assert ended or saved == SAVES, (at, how)
        assert (ended == "_Killed") == how.startswith("killed"), (at, how, ended)
    assert at > 30


@pytest.mark.compile
def test_train_ends_with_74_and_goes_on_later(
    tmp_path: Path, disk: _Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "--dataset", "digits", "--model", "mlp", "--epochs", "1", "--checkpoint-every", "5"]
    disk.only = lambda path: "checkpoints/.tmp-" in path
    disk.fail(20, "ENOSPC")
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--run-dir", "run"])
    assert ended.value.code == 74
    told = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(told) == 1
    assert told[0].startswith("tfmb: error[74]: the checkpoint after ")
    assert "No space left on device): make room, then go on with --resume run" in told[0]
    assert not tiny_run.leftovers(tmp_path)
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
    disk.heal()
    assert main(["train", "--resume", "run", "--json"]) == 0
    assert '"updates": 23' in capsys.readouterr().out


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_name_of_a_new_run_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    _, lock = create_run_dir(tmp_path / "new" / "run")
    lock.release()
    assert {str(tmp_path), str(tmp_path / "new")} <= set(synced)


@pytest.mark.parametrize("seed", range(20))
def test_forged_index_never_reaches_tensorflow(tmp_path: Path, seed: int) -> None:
    """Its reader ends the process where a shape in the index makes no sense."""
    run = tiny_run.TinyRun(tmp_path)
    run.save(1)
    run.keeper.close()
    forged.forge_index(tmp_path / "checkpoints" / "step-000000000001", random.Random(seed))
    assert tiny_run.restore(tmp_path) == 1  # the tensors are as their digest says


@pytest.mark.process
@pytest.mark.sample
@needs_strace()
def test_names_and_bytes_are_synced_before_a_save_is_told_of(server: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    trace = ["-e", "trace=openat,write,pwrite64,writev,fsync,rename,unlink,unlinkat,mkdir,rmdir"]
    ended = server.call("tiny_run:save", str(tmp_path / "run"), SAVES, strace=trace)
    told = renamed = 0
    disk = Durability()
    for line in ended.trace:
        old, new = disk.follow(line)
        if "/step-" in new:  # its files and their names are synced before it gets its name
            assert "/.tmp-" in old
            assert not disk.at_risk(new), line
            renamed += 1
        if re.search(r'writev\(1<.*"saved ', line):
            assert not disk.at_risk(str(tmp_path / "run")), line
            told += 1
    assert ended.code == 0, ended.error
    assert (renamed, told) == (SAVES, SAVES)
    assert disk.synced >= SAVES * 5


@pytest.mark.process
@needs_strace()
@pytest.mark.parametrize("start", ["nothing", "leftovers"])
@pytest.mark.filterwarnings("ignore:.*set aside")
def test_system_calls_that_fail_or_are_the_last(server: ForkServer, tmp_path: Path, start: str) -> None:
    every = syscall_faults.points(server, tmp_path / "dry", start)
    for point in every[::11]:  # all of them: tests/slow
        syscall_faults.inject(server, tmp_path, point)
