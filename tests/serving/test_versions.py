"""Numbered folders that appear whole: races, leftovers of the dead, and what is no version."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from tfmb.errors import ConfigError, DataError, DirectoryError
from tfmb.serving.versions import newest_version, publish, temporary_in, version_before


def release(folder: Path, content: str = "x") -> Path:
    with temporary_in(folder) as temporary:
        (temporary / "saved_model.pb").write_text(content)
        return publish(temporary, folder)


def test_the_next_free_number_and_nothing_left_over(tmp_path: Path) -> None:
    folder = tmp_path / "name"
    (folder / "7").mkdir(parents=True)
    (folder / "٩").mkdir()  # a digit to Python, no number to TensorFlow Serving
    (folder / "100 old").mkdir()
    assert release(folder) == folder / "8"
    (folder / "9").write_text("a file")
    assert release(folder) == folder / "10"
    assert not list(folder.glob(".tmp*"))


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), temporary_in(tmp_path / "name") as temporary:
        temporary.write_text("a folder cannot be written")
    assert not list((tmp_path / "name").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryError, match="cannot be made"), temporary_in(tmp_path / "file"):
        pass


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    dead, living, link = tmp_path / ".tmp-dead", tmp_path / ".tmp-living", tmp_path / ".tmp-link"
    for path in (dead, living, tmp_path / "elsewhere"):
        path.mkdir()
        (path / "file").write_text("x")
    link.symlink_to(tmp_path / "elsewhere")
    descriptor = os.open(living, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        release(tmp_path)
    finally:
        os.close(descriptor)
    assert not dead.exists()
    assert (living / "file").exists()
    assert (tmp_path / "elsewhere" / "file").exists()


def test_exports_at_the_same_time_get_numbers_of_their_own(tmp_path: Path) -> None:
    def several(name: str) -> None:
        for _ in range(20):
            made = release(tmp_path, name)
            assert (made / "saved_model.pb").read_text() == name

    threads = [threading.Thread(target=several, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(1, 81))


def test_newest_and_before(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no SavedModel"):
        newest_version(tmp_path)
    with pytest.raises(ConfigError, match=r"--against latest: .* holds no version yet"):
        version_before("latest", tmp_path)
    for _ in range(10):
        release(tmp_path)
    (tmp_path / "11").mkdir()  # holds nothing
    assert newest_version(tmp_path) == version_before("latest", tmp_path) == tmp_path / "10"
    assert newest_version(tmp_path / "2") == version_before(tmp_path / "2", tmp_path) == tmp_path / "2"
    with pytest.raises(DataError, match="holds no SavedModel"):
        version_before(tmp_path / "11", tmp_path)
