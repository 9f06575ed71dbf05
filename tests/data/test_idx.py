"""IDX files: read right, or refused in one line that names the file and the mend."""

import gzip
import resource
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.data.idx import load_idx_folder, read_idx
from tfmb.errors import DataError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (6, 5, 4), dtype=np.uint8)
FOLDER = {
    "train-images-idx3-ubyte": IMAGES,
    "train-labels-idx1-ubyte": np.array([0, 1, 2, 0, 1, 2], np.uint8),
    "t10k-images-idx3-ubyte": IMAGES[:2],
    "t10k-labels-idx1-ubyte": np.array([2, 1], np.uint8),
}
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FOLDER


def idx(array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    """The bytes of an IDX file; `shape` is what its header claims."""
    shape = array.shape if shape is None else shape
    return bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes() + array.tobytes()


def write_folder(folder: Path, changes: dict[str, np.ndarray | None] | None = None) -> Path:
    for name, array in {**FOLDER, **(changes or {})}.items():
        if array is not None:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return folder


def refusal(function: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(DataError) as caught:
        function(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def read_or_refuse(path: Path) -> np.ndarray | None:
    """The array, or None where the file is refused in one line."""
    try:
        return read_idx(path)
    except DataError as error:
        message = str(error)
    assert "\n" not in message
    return None


@pytest.mark.parametrize("array", [IMAGES, IMAGES[:, 0, 0], IMAGES[..., None]], ids=["images", "labels", "colour"])
@pytest.mark.parametrize("name", ["plain", "zipped.gz", "zipped", "plain.gz"])
def test_a_file_is_read_whatever_its_name(tmp_path: Path, array: np.ndarray, name: str) -> None:
    content = gzip.compress(idx(array)) if name.startswith("zipped") else idx(array)
    (tmp_path / name).write_bytes(content)
    np.testing.assert_array_equal(read_idx(tmp_path / name), array, strict=True)
    np.testing.assert_array_equal(read_idx(str(tmp_path / name)), array, strict=True)


WHOLE = idx(IMAGES)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "wrong magic number"),
        (WHOLE[:3], "wrong magic number"),
        (WHOLE[:9], "header is cut short"),
        (WHOLE[:-1], "promises 120 bytes, the file holds 119"),
        (WHOLE[:16], "promises 120 bytes, the file holds 0"),
        (WHOLE + b"\0", "promises 120 bytes, the file holds more than 120"),
        (b"\x89PNG" + WHOLE[4:], "wrong magic number 89504e47"),
        (b"\0\0\x0d\x03" + WHOLE[4:], "wrong magic number 00000d03"),
        (b"\0\0\x08\0", "wrong magic number 00000800"),
        (b"\0\0\x08\x02" + WHOLE[4:], "wrong magic number 00000802"),
        (b"<!DOCTYPE html><html>not found</html>", "wrong magic number 3c21444f"),
    ],
    ids=["empty", "magic cut", "header cut", "body cut", "no body", "longer", "PNG", "floats", "no axes", "2 axes",
         "HTML"],
)  # fmt: skip
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path: Path, content: bytes, words: str, zipped: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if zipped else content)
    message = refusal(read_idx, path)
    assert words in message
    assert message.endswith("fetch the file again")


def test_a_missing_file_or_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "no such file: give" in refusal(read_idx, tmp_path / "nothing")
    assert "it is no plain file" in refusal(read_idx, tmp_path)


@pytest.mark.parametrize("from_end", [8, 5, 1], ids=["checksum", "its last byte", "length"])
def test_a_wrong_gzip_checksum_is_found_after_the_last_byte(tmp_path: Path, from_end: int) -> None:
    content = bytearray(gzip.compress(WHOLE))
    content[-from_end] ^= 1
    path = tmp_path / "file.gz"
    path.write_bytes(bytes(content))
    assert refusal(read_idx, path).endswith("fetch the file again")


@pytest.mark.parametrize("shape", [(2**32 - 1,), (2**32 - 1,) * 3, (2**31, 1, 1), (60_000, 28, 28)])
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
def test_a_header_that_promises_much_reserves_no_memory(tmp_path: Path, shape: tuple[int, ...], zipped: bool) -> None:
    path = tmp_path / "file"
    content = idx(IMAGES, shape)
    path.write_bytes(gzip.compress(content) if zipped else content)
    tracemalloc.start()
    try:
        words = refusal(read_idx, path)
        assert f"promises {np.prod(shape, dtype=object)} bytes, " in words
        assert "the file holds 120" in words or "cannot hold" in words
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


MUTATION = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 500), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.integers(0, 500), st.just(0)),
    st.tuples(st.just("insert"), st.integers(0, 500), st.integers(0, 255)),
    st.tuples(st.just("extend"), st.integers(1, 20), st.integers(0, 255)),
)


def mutate(content: bytes, mutation: tuple[str, int, int]) -> bytes:
    kind, where, value = mutation
    at = where % (len(content) + 1)
    if kind == "flip":
        return content[:at] + bytes(byte ^ value for byte in content[at : at + 1]) + content[at + 1 :]
    if kind == "cut":
        return content[:at]
    if kind == "insert":
        return content[:at] + bytes([value]) + content[at:]
    return content + bytes([value]) * where


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "file"


@pytest.mark.compile
@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.lists(MUTATION, min_size=1, max_size=3))
def test_any_mutation_of_a_gzip_file_is_refused_or_harmless(
    scratch: Path, mutations: list[tuple[str, int, int]]
) -> None:
    content = gzip.compress(WHOLE, mtime=0)
    for mutation in mutations:
        content = mutate(content, mutation)
    scratch.write_bytes(content)
    found = read_or_refuse(scratch)
    if found is not None:
        np.testing.assert_array_equal(found, IMAGES, strict=True)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.sampled_from([0, 1, 2, 3, 2**16, 2**31, 2**32 - 1]), min_size=1, max_size=4), st.binary(max_size=12))
def test_any_header_is_refused_or_kept(scratch: Path, sizes: list[int], body: bytes) -> None:
    scratch.write_bytes(idx(np.frombuffer(body, np.uint8), tuple(sizes)))
    found = read_or_refuse(scratch)
    if found is not None:
        assert found.shape == tuple(sizes)
        assert found.tobytes() == body


def test_a_folder_becomes_splits(tmp_path: Path) -> None:
    splits = load_idx_folder(write_folder(tmp_path))
    assert splits.test is not None
    np.testing.assert_array_equal(splits.train.examples, IMAGES[..., None], strict=True)
    np.testing.assert_array_equal(splits.test.examples, IMAGES[:2, ..., None], strict=True)
    np.testing.assert_array_equal(splits.train.labels, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(splits.test.labels, [2, 1])
    assert splits.train.num_classes == splits.test.num_classes == 3
    assert splits.normalization is not None
    assert splits.normalization.mean == pytest.approx(IMAGES.mean() / 255, abs=6e-5)
    assert splits.normalization.std == pytest.approx(IMAGES.std() / 255, abs=6e-5)
    assert str(tmp_path) in splits.origin


def test_the_other_usual_names_and_plain_files_do_as_well(tmp_path: Path) -> None:
    for name, array in FOLDER.items():
        (tmp_path / name.replace("-idx", ".idx")).write_bytes(idx(array))
    np.testing.assert_array_equal(load_idx_folder(tmp_path).train.examples, IMAGES[..., None])


BLANK = np.full_like(IMAGES, 7)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({TRAIN_IMAGES: None}, "no train-images-idx3-ubyte"),
        ({TEST_LABELS: None}, "no t10k-labels-idx1-ubyte"),
        ({TRAIN_LABELS: np.array([0, 1, 2], np.uint8)}, "train images of shape (6, 5, 4) do not fit"),
        ({TEST_IMAGES: IMAGES[:3]}, "test images of shape (3, 5, 4) do not fit"),
        ({TRAIN_LABELS: IMAGES}, "train images of shape (6, 5, 4) do not fit"),
        ({TRAIN_IMAGES: IMAGES[:, 0, 0]}, "train images of shape (6,) do not fit"),
        ({TRAIN_LABELS: np.array([0, 1, 3, 0, 1, 3], np.uint8)}, "reach 3 but none is 2"),
        ({TRAIN_LABELS: np.array([1, 1, 2, 2, 1, 1], np.uint8)}, "reach 2 but none is 0"),
        ({TRAIN_LABELS: np.array([0, 1, 2, 0, 1, 255], np.uint8)}, "reach 255 but none is 3"),
        ({TEST_LABELS: np.array([2, 3], np.uint8)}, "label 3 is out of range [0, 3)"),
        ({TRAIN_IMAGES: BLANK}, "all train pixels are 7"),
        ({TEST_IMAGES: BLANK[:2]}, "all test pixels are 7"),
        ({TEST_IMAGES: IMAGES[:2, :4]}, "different sizes"),
        ({TRAIN_IMAGES: IMAGES[:0], TRAIN_LABELS: np.zeros(0, np.uint8)}, "train images are empty"),
        ({TEST_IMAGES: IMAGES[:0], TEST_LABELS: np.zeros(0, np.uint8)}, "test images are empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_files_that_do_not_fit_together_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray | None], words: str
) -> None:
    message = refusal(load_idx_folder, write_folder(tmp_path, changes))
    assert words in message
    assert ": " in message.partition(words)[2], "what to do about it"


def test_a_damaged_file_of_a_folder_is_named(tmp_path: Path) -> None:
    file = write_folder(tmp_path) / f"{TEST_LABELS}.gz"
    file.write_bytes(file.read_bytes()[:-1])
    assert str(file) in refusal(load_idx_folder, tmp_path)


@pytest.mark.parametrize("name", ["nothing", "file", "x" * 300], ids=["missing", "a file", "too long a name"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    assert "give one with the four IDX files" in refusal(load_idx_folder, tmp_path / name)


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    shape = (3 * 2**20, 1024)
    path = tmp_path / "a.gz"
    with gzip.open(path, "wb", 9) as file:
        file.write(b"\0\0\x08\x03" + struct.pack(">3I", *shape, 1))
        for _ in range(3):
            file.write(bytes(2**20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"promises 3221225472 bytes, which the file's \d+ cannot hold: unpack it"):
        read_idx(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
