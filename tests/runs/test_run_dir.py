"""A run's directory: made once, written whole, read back or refused."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tfmb.errors import DataError, DirectoryError
from tfmb.runs.run_dir import create_run_dir, hash_weights, load_weights, open_run_dir, save_weights, versions
from tfmb.runs.run_record import read_run, write_run
from tfmb.storage.lock import LOCK_FILE

WEIGHTS = [np.arange(6, dtype="float32").reshape(2, 3), np.zeros((0, 4)), np.array(7, "int32"), np.ones(3, "float16")]


def test_directory_is_made_with_its_parents_and_empty(tmp_path: Path) -> None:
    path, lock = create_run_dir(tmp_path / "a" / "b c")
    assert path.is_dir()
    assert [entry.name for entry in path.iterdir()] == [LOCK_FILE]
    with pytest.raises(DirectoryError, match=rf"is in use by process {os.getpid()} on "):
        create_run_dir(path)
    lock.release()
    again, lock = create_run_dir(str(path))  # it holds nothing but our marker: it may be given again
    assert again == path
    lock.release()


def test_directory_of_a_run_is_locked_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no run"):
        open_run_dir(tmp_path)
    write_run(tmp_path, {"config": {}})
    (tmp_path / ".run.json.tmp").write_text("half")
    path, lock = open_run_dir(tmp_path)
    assert sorted(entry.name for entry in path.iterdir()) == [LOCK_FILE, "run.json"]
    with pytest.raises(DirectoryError, match="is in use by process"):
        open_run_dir(tmp_path)
    lock.release()
    open_run_dir(tmp_path)[1].release()


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert create_run_dir("~/run")[0] == tmp_path / "run"


def test_directory_in_use_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, {"config": {}})
    with pytest.raises(DirectoryError, match=r"\A[^\n]*holds a run already[^\n]*\Z"):
        create_run_dir(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(DirectoryError, match=r"\A[^\n]*is not empty[^\n]*\Z"):
        create_run_dir(other)
    assert (other / "notes.txt").read_text() == "mine"


def test_place_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "run"):
        with pytest.raises(DirectoryError, match=r"\A[^\n]*cannot be made or written[^\n]*\Z") as caught:
            create_run_dir(path)
        assert caught.value.exit_code == 73
        assert str(path) in str(caught.value)


def test_record_is_read_back(tmp_path: Path) -> None:
    record = {"config": {"epochs": 3}, "result": {"loss": 0.1, "name": "größe"}, "data": None}
    write_run(tmp_path, record)
    assert read_run(tmp_path) == read_run(str(tmp_path)) == record
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, {"config": {"epochs": 1}})
    with pytest.raises(TypeError):
        write_run(tmp_path, {"config": {"epochs": 2}, "model": object()})
    assert read_run(tmp_path) == {"config": {"epochs": 1}}

    def crash(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="no space"):
        write_run(tmp_path, {"config": {"epochs": 3}})
    assert read_run(tmp_path) == {"config": {"epochs": 1}}


def test_missing_record_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"\A[^\n]*holds no run[^\n]*\Z"):
            read_run(path)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[1]", b'{"config": 3}', b'"text"', b"\xff\xfe\x00", b'{"config": {}} more'], ids=repr
)
def test_damaged_record_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "run.json").write_bytes(damage)
    with pytest.raises(DataError, match=r"\A[^\n]*damaged[^\n]*\Z") as caught:
        read_run(tmp_path)
    assert caught.value.exit_code == 65


def test_record_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(DataError, match="damaged"):
        read_run(tmp_path)


def test_weights_are_read_back_with_their_bits(tmp_path: Path) -> None:
    checksum = save_weights(tmp_path, WEIGHTS)
    assert checksum == hash_weights(WEIGHTS)
    for found, expected in zip(load_weights(tmp_path, checksum), WEIGHTS, strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.npz"]


@pytest.mark.compile
def test_more_than_ten_thousand_weights_keep_their_order(tmp_path: Path) -> None:
    weights = [np.array(number, "int32") for number in range(10_001)]
    checksum = save_weights(tmp_path, weights)
    assert load_weights(tmp_path, checksum) == weights


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    checksum = save_weights(tmp_path, WEIGHTS[:1])
    path = tmp_path / "weights.npz"
    whole = path.read_bytes()
    refusals = []
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(bytes(damaged))
        try:
            (found,) = load_weights(tmp_path, checksum)
        except DataError as error:
            refusals.append(str(error))
            continue
        np.testing.assert_array_equal(found, WEIGHTS[0])  # a byte that means nothing, such as a date in the archive
    assert len(refusals) > len(whole) / 14
    for message in refusals:
        assert message.endswith("train again")
        assert "\n" not in message


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_truncated_or_missing_weights_are_refused(tmp_path: Path, cut: int) -> None:
    checksum = save_weights(tmp_path, WEIGHTS)
    path = tmp_path / "weights.npz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"\A[^\n]*train again\Z"):
        load_weights(tmp_path, checksum)
    path.unlink()
    with pytest.raises(DataError, match=r"\A[^\n]*is missing[^\n]*\Z"):
        load_weights(tmp_path, checksum)


def test_weights_of_another_run_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path, WEIGHTS)
    with pytest.raises(DataError, match="checksum"):
        load_weights(tmp_path, hash_weights(WEIGHTS[:1]))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    named: dict[str, Any] = {"0000": np.array([{"a": 1}], dtype=object)}
    np.savez(tmp_path / "weights.npz", **named)
    with pytest.raises(DataError, match=r"\A[^\n]*cannot be read[^\n]*\Z"):
        load_weights(tmp_path, "")


def test_packed_weights_are_not_unpacked(tmp_path: Path) -> None:
    named: dict[str, Any] = {"00000000": np.zeros(10**6)}
    np.savez_compressed(tmp_path / "weights.npz", **named)
    with pytest.raises(DataError, match=r"cannot be read \(it is packed\)"):
        load_weights(tmp_path, "")


@pytest.mark.parametrize(
    ("name", "read"), [("run.json", read_run), ("weights.npz", lambda path: load_weights(path, ""))]
)
def test_pipes_and_devices_are_not_read(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="it is no plain file"):
        read(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match="it is no plain file"):
        read(tmp_path)


def test_very_deep_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"config": ' * 10**5 + "1" + "}" * 10**5)
    with pytest.raises(DataError, match="damaged"):
        read_run(tmp_path)


def test_hash_is_that_of_the_record() -> None:
    digest = hashlib.sha256()
    digest.update(b"<f4 (2, 3)\n" + WEIGHTS[0].tobytes() + b"<i4 ()\n" + WEIGHTS[2].tobytes())
    assert hash_weights([WEIGHTS[0], WEIGHTS[2]]) == digest.hexdigest()
    assert hash_weights([WEIGHTS[0].T.copy().T, WEIGHTS[2]]) == digest.hexdigest()  # however it lies in memory


def test_hash_depends_on_dtype_shape_and_order() -> None:
    zeros = np.zeros(4, "float32")
    variants: list[list[np.ndarray]] = [
        [zeros],
        [zeros.astype("int32")],
        [zeros.reshape(2, 2)],
        [zeros[:2], zeros[2:]],
        [zeros, zeros[:0]],
        [],
    ]
    swapped = [[zeros, np.ones(4, "float32")], [np.ones(4, "float32"), zeros]]
    assert len({hash_weights(weights) for weights in variants + swapped}) == len(variants) + 2


@given(
    weight=arrays.arrays("float32", arrays.array_shapes(max_dims=2, max_side=4), elements=st.floats(-9, 9, width=32)),
    data=st.data(),
)
def test_hash_depends_on_every_byte(weight: np.ndarray, data: st.DataObject) -> None:
    changed = bytearray(weight.tobytes())
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    other = np.frombuffer(bytes(changed), "float32").reshape(weight.shape)
    assert hash_weights([other]) != hash_weights([weight])


def test_versions_are_plain_text() -> None:
    found = versions()
    assert {"python", "platform", "tfmb", "tensorflow", "keras", "numpy"} <= set(found)
    assert json.loads(json.dumps(found)) == found
    assert found["numpy"] == np.__version__
