"""A folder that would not keep a run is refused before anything is trained."""

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfmb.cli import main
from tfmb.errors import DirectoryError
from tfmb.storage.folders import PROBE, check_name, naming, probe


def test_nothing_is_left_of_a_look(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("a")
    probe(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def refusing(code: int) -> Callable[..., Any]:
    def refuse(*given: Any, **named: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize(
    ("what", "broken", "words"),
    [
        ("fcntl.flock", refusing(errno.ENOLCK), "locks do not hold there (No locks available)"),
        ("fcntl.flock", lambda *given: None, "locks do not hold there (two have the same one)"),
        ("os.fsync", refusing(errno.EINVAL), "a file cannot be synced to the disk there (Invalid argument)"),
        ("os.replace", refusing(errno.EPERM), "a file cannot take the place of another there"),
        ("os.replace", lambda old, new: None, "a file cannot take the place of another there"),
        ("pathlib.Path.rename", refusing(errno.EXDEV), "a folder cannot be renamed there"),
        ("tfmb.storage.folders.sync", refusing(errno.EIO), "the names in a folder cannot be synced to the disk there"),
    ],
)
def test_what_does_not_hold_is_named(
    what: str, broken: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(what, broken)
    with pytest.raises(DirectoryError) as caught:
        probe(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_look_that_was_killed_is_cleared_away_later(tmp_path: Path) -> None:
    for name, age in (("old", 3600), ("new", 0)):
        (tmp_path / f"{PROBE}{name}").mkdir()
        os.utime(tmp_path / f"{PROBE}{name}", (time.time() - age,) * 2)
    probe(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{PROBE}new"]  # which may be another process's


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gs://bucket/run", "is an address"),
        (Path("gs://bucket/run"), "is an address"),
        ("hdfs://a/b", "is an address"),
        ("", "names no folder"),
        ("a\0b", "names no folder"),
        (os.fsdecode(b"runs/\xff"), "is no UTF-8"),
    ],
)
def test_names_that_are_none(name: str | Path, words: str) -> None:
    with pytest.raises(DirectoryError, match=words):
        check_name(name, "--run-dir")


@pytest.mark.parametrize("name", ["runs/a", "/tmp/a b", "runs/é", "C/x", "a:b"])
def test_names_that_are_some(name: str) -> None:
    check_name(name, "--run-dir")


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--dataset", "digits", "--run-dir", "gs://bucket/run"],
        ["tune", "--dataset", "digits", "--run-dir", "gs://bucket/run"],
        ["train", "--dataset", "digits", "--run-dir", os.fsdecode(b"runs/\xff")],
    ],
)
def test_commands_refuse_them_before_anything_else(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 73
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_locked_folder_is_refused_where_locks_do_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tfmb.runs.run_dir import create_run_dir

    monkeypatch.setattr(fcntl, "flock", lambda *given: None)
    with pytest.raises(DirectoryError, match="locks do not hold"):
        create_run_dir(tmp_path / "a")


def test_an_error_without_a_name_gets_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, naming(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a")
    with pytest.raises(OSError, match="b") as caught, naming(tmp_path / "a"):
        raise OSError(errno.ENOENT, "No such file", "b")
    assert caught.value.filename == "b"
