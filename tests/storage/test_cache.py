"""The cache of decoded datasets: whole and right, or not there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.storage.atomic import MANIFEST
from tfmb.storage.cache import cache_root, load_arrays, save_arrays

ARRAYS: dict[str, np.ndarray] = {
    "images": np.arange(48, dtype=np.uint8).reshape(2, 4, 6, 1),
    "labels": np.array([3, 1], dtype=np.int64),
    "num_classes": np.asarray(10),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "1.0.0"
    save_arrays(folder, ARRAYS)
    return folder


def assert_same(found: dict[str, np.ndarray] | None, expected: dict[str, np.ndarray]) -> None:
    assert found is not None
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "1.0.0"
    save_arrays(folder, ARRAYS)
    assert_same(load_arrays(folder), ARRAYS)


def test_a_view_is_saved_like_its_copy(tmp_path: Path) -> None:
    view = {"x": np.arange(24.0).reshape(4, 6).T[::2]}
    save_arrays(tmp_path / "view", view)
    assert_same(load_arrays(tmp_path / "view"), view)


def test_a_folder_that_is_there_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "1.0.0"
    save_arrays(folder, ARRAYS)
    other = {"x": np.arange(3)}
    save_arrays(folder, other)
    assert_same(load_arrays(folder), other)
    assert not (folder / "images.npy").exists()


def test_nothing_else_is_left_behind(tmp_path: Path) -> None:
    for arrays in (ARRAYS, {"x": np.arange(3)}):
        save_arrays(tmp_path / "1.0.0", arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["1.0.0"]


def test_arrays_that_cannot_be_saved_leave_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "1.0.0"
    save_arrays(folder, ARRAYS)
    with pytest.raises(ValueError, match="allow_pickle"):
        save_arrays(folder, {"a": np.arange(2), "b": np.array([None])})
    assert_same(load_arrays(folder), ARRAYS)
    assert [path.name for path in tmp_path.iterdir()] == ["1.0.0"]


def test_a_cache_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        save_arrays(tmp_path / "file" / "1.0.0", ARRAYS)


def test_a_missing_folder_is_none(tmp_path: Path) -> None:
    assert load_arrays(tmp_path / "nothing") is None


@pytest.mark.parametrize("gone", ["images.npy", "labels.npy", "num_classes.npy", MANIFEST])
def test_an_incomplete_folder_is_none(saved: Path, tmp_path: Path, gone: str) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    (folder / gone).unlink()
    assert load_arrays(folder) is None


@pytest.mark.parametrize("index", ["", "{", "[]", "null", "5", '{"images": 1}', '{"../images": "00"}', "\xff"])
def test_an_index_that_makes_no_sense_is_none(saved: Path, tmp_path: Path, index: str) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    (folder / MANIFEST).write_text(index, encoding="latin-1")
    assert load_arrays(folder) is None


def test_files_swapped_among_each_other_are_none(tmp_path: Path) -> None:
    folder = tmp_path / "1.0.0"
    save_arrays(folder, {"a": np.arange(3), "b": np.arange(3) + 1})
    (folder / "a.npy").rename(folder / "c.npy")
    (folder / "b.npy").rename(folder / "a.npy")
    (folder / "c.npy").rename(folder / "b.npy")
    assert load_arrays(folder) is None


@pytest.mark.parametrize(
    "other", [ARRAYS["labels"].view(">i8"), ARRAYS["labels"].reshape(2, 1)], ids=["dtype", "shape"]
)
def test_the_checksum_covers_dtype_and_shape(saved: Path, tmp_path: Path, other: np.ndarray) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    np.save(folder / "labels.npy", other)
    assert load_arrays(folder) is None


def _assert_safe(folder: Path, name: str, damaged: bytes) -> None:
    """Damage is found, or does no harm; it never ends the program."""
    file = folder / name
    before = file.read_bytes()
    file.write_bytes(damaged)
    try:
        found = load_arrays(folder)
    finally:
        file.write_bytes(before)
    if found is not None:
        assert_same(found, ARRAYS)


HEADER = 128  # bytes of a .npy file before its data


def test_any_flipped_byte_of_the_data_is_found(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    file = folder / "images.npy"
    before = file.read_bytes()
    assert len(before) == HEADER + ARRAYS["images"].size
    for position in range(HEADER, len(before)):
        file.write_bytes(before[:position] + bytes([before[position] ^ 1]) + before[position + 1 :])
        assert load_arrays(folder) is None, position
    file.write_bytes(before)
    assert_same(load_arrays(folder), ARRAYS)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.integers(0, HEADER - 1), st.integers(1, 255))
def test_any_flipped_byte_of_an_array_header_is_found_or_harmless(saved: Path, position: int, change: int) -> None:
    damaged = bytearray((saved / "images.npy").read_bytes())
    damaged[position] ^= change
    _assert_safe(saved, "images.npy", bytes(damaged))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.integers(0, 10**4), st.integers(1, 255))
def test_any_flipped_byte_of_the_index_is_found_or_harmless(saved: Path, position: int, change: int) -> None:
    damaged = bytearray((saved / MANIFEST).read_bytes())
    damaged[position % len(damaged)] ^= change
    _assert_safe(saved, MANIFEST, bytes(damaged))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.sampled_from(["images.npy", "labels.npy", MANIFEST]), st.integers(0, 300))
def test_a_file_cut_short_is_found(saved: Path, name: str, length: int) -> None:
    _assert_safe(saved, name, (saved / name).read_bytes()[:length])


def test_an_index_that_lost_an_entry_is_none(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    index = json.loads((folder / MANIFEST).read_text())
    del index["files"]["num_classes.npy"]
    (folder / MANIFEST).write_text(json.dumps(index))
    assert load_arrays(folder) is None


def test_the_root_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("TFMB_CACHE", "~/mine")
    assert cache_root() == tmp_path / "home" / "mine"
    monkeypatch.delenv("TFMB_CACHE")
    assert cache_root() == tmp_path / "xdg" / "tfmb"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == tmp_path / "home" / ".cache" / "tfmb"
