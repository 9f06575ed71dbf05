"""MNIST through TFDS: the official files or nothing, decoded once, and no waiting for a network that is not there."""

import gzip
import hashlib
import http.client
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfmb.data import Splits, load, tfds_images
from tfmb.data.source import Normalization
from tfmb.data.tfds_images import is_cached, load_tfds, reachable
from tfmb.errors import ConfigError, DataError
from tfmb.storage.cache import save_arrays

FILES = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def use(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Keeps our cache, and what TFDS prepares, in `folder`."""
    monkeypatch.setenv("TFMB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(folder / "tfds"))


@pytest.fixture(autouse=True)
def _fresh_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cached or prepared, and the network is down."""
    use(monkeypatch, tmp_path)

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise urllib.error.URLError("the network is down")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)


@pytest.fixture(scope="module")
def prepared(mnist_mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Splits]:
    """MNIST, prepared and decoded once, and the folder that has it."""
    folder = tmp_path_factory.mktemp("mnist")
    with pytest.MonkeyPatch.context() as patch:
        use(patch, folder)
        return folder, load_tfds("mnist", mnist_mirror)


def rows(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    """One text of bytes an example, sorted: the order in the files is no matter."""
    flat = np.column_stack([images.reshape(len(images), -1), labels.astype(np.uint8)])
    return sorted(row.tobytes() for row in flat)


@pytest.mark.compile
@pytest.mark.mnist
def test_the_splits_are_the_official_files(prepared: tuple[Path, Splits], mnist_mirror: Path) -> None:
    splits = prepared[1]
    assert splits.test is not None
    for part, source, size in (("train", splits.train, 60_000), ("t10k", splits.test, 10_000)):
        assert source.examples.shape == (size, 28, 28, 1)
        assert source.examples.dtype == np.uint8
        assert source.labels.dtype == np.int64
        assert source.num_classes == 10
        images = np.frombuffer(gzip.decompress((mnist_mirror / f"{part}-images-idx3-ubyte.gz").read_bytes())[16:], "u1")
        labels = np.frombuffer(gzip.decompress((mnist_mirror / f"{part}-labels-idx1-ubyte.gz").read_bytes())[8:], "u1")
        assert rows(source.examples, source.labels) == rows(images.reshape(size, -1), labels)
    assert splits.normalization == Normalization(mean=0.1307, std=0.3081)
    assert splits.epochs == 5
    assert str(mnist_mirror) in splits.origin


@pytest.mark.compile
@pytest.mark.mnist
@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_the_second_load_needs_neither_tfds_nor_the_mirror(
    prepared: tuple[Path, Splits], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first = prepared
    use(monkeypatch, folder)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # importing it fails
    again = load(name)
    assert again.train.fingerprint == first.train.fingerprint
    assert again.test is not None
    assert first.test is not None
    assert again.test.fingerprint == first.test.fingerprint
    assert "cache" in again.origin
    assert is_cached("mnist")


def flip(file: Path) -> None:
    """Changes one bit in the middle."""
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 16]))


@pytest.fixture
def copied(prepared: tuple[Path, Splits], tmp_path: Path) -> Path:
    """A copy of the decoded cache, in use; TFDS has nothing prepared."""
    return Path(shutil.copytree(prepared[0] / "cache", tmp_path / "cache")) / "datasets" / "mnist"


@pytest.mark.compile
@pytest.mark.mnist
def test_a_flipped_cache_is_decoded_and_written_again(
    prepared: tuple[Path, Splits], copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = prepared[1].train.fingerprint
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared[0] / "tfds"))
    (file,) = copied.glob("*/train_images.npy")
    flip(file)
    assert load_tfds("mnist").train.fingerprint == expected
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert load_tfds("mnist").train.fingerprint == expected


@pytest.mark.compile
@pytest.mark.mnist
@pytest.mark.parametrize("name", ["test_images", "train_labels", "num_classes"])
def test_a_flipped_cache_is_not_used_even_where_there_is_nothing_else(copied: Path, name: str) -> None:
    (file,) = copied.glob(f"*/{name}.npy")
    flip(file)
    with pytest.raises(ConfigError, match="--mirror"):
        load_tfds("mnist")


@pytest.mark.compile
@pytest.mark.mnist
def test_a_cache_of_other_images_is_refused_though_its_checksums_fit(
    prepared: tuple[Path, Splits], copied: Path
) -> None:
    splits = prepared[1]
    assert splits.test is not None
    images = splits.test.examples.copy()
    images[5000, 14, 14] ^= 1
    arrays = {"train_images": splits.train.examples, "train_labels": splits.train.labels, "test_images": images}
    arrays |= {"test_labels": splits.test.labels, "num_classes": np.asarray(10)}
    (folder,) = copied.iterdir()
    save_arrays(folder, arrays)
    with pytest.raises(DataError, match=f"test split is not the official one: delete {folder}"):
        load_tfds("mnist")


@pytest.mark.compile
@pytest.mark.mnist
def test_prepared_files_that_are_damaged_are_refused(
    prepared: tuple[Path, Splits], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source,) = prepared[0].glob("tfds/mnist/*")
    folder = Path(shutil.copytree(source, tmp_path / "tfds" / "mnist" / source.name))
    (records,) = folder.glob("*test.tfrecord*")
    flip(records)
    assert is_cached("mnist")
    with pytest.raises(DataError) as caught:
        load_tfds("mnist")
    assert f"the prepared files in {folder} cannot be read: delete them" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def mirror(mnist_mirror: Path, tmp_path: Path) -> Path:
    """A mirror that may be damaged: links, to be replaced."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name in FILES:
        (folder / name).symlink_to(mnist_mirror / name)
    return folder


def replace(file: Path, change: Callable[[bytes], bytes]) -> bytes:
    content = change(file.read_bytes())
    file.unlink()
    file.write_bytes(content)
    return content


@pytest.mark.mnist
@pytest.mark.parametrize("load_it", [load_tfds, lambda _, mirror: load("auto", mirror)], ids=["mnist", "auto"])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"",
    ],
    ids=["flipped", "cut", "longer", "empty"],
)
def test_a_mirror_with_a_damaged_file_is_refused_with_both_checksums(
    mirror: Path, name: str, change: Callable[[bytes], bytes], load_it: Callable[[str, Path], Splits]
) -> None:
    right = hashlib.sha256((mirror / name).read_bytes()).hexdigest()
    wrong = hashlib.sha256(replace(mirror / name, change)).hexdigest()
    with pytest.raises(DataError) as caught:
        load_it("mnist", mirror)
    message = str(caught.value)
    for words in (str(mirror / name), right[:16], wrong[:16], "fetch the file again"):
        assert words in message
    assert "\n" not in message
    assert not is_cached("mnist")


@pytest.mark.mnist
@pytest.mark.parametrize("name", FILES)
def test_a_mirror_with_a_missing_file_names_it(mirror: Path, name: str) -> None:
    (mirror / name).unlink()
    with pytest.raises(DataError, match=f"mirror {mirror}: {name} missing: give"):
        load_tfds("mnist", mirror)
    assert not is_cached("mnist")


@pytest.mark.parametrize("kind", ["nothing", "a file", "x" * 300], ids=["missing", "a file", "too long a name"])
def test_a_mirror_that_is_no_folder_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(DataError, match=f"mirror {tmp_path / kind}: no such folder"):
        load_tfds("mnist", tmp_path / kind)


def test_a_mirror_without_the_files_is_no_reason_to_use_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any dataset, not only MNIST: TFDS would try for minutes."""

    def download(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("TFDS was asked to fetch what the mirror does not have")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
    with pytest.raises(DataError, match=f"mirror {tmp_path}.*missing"):
        load_tfds("fashion_mnist", tmp_path)


def test_without_cache_mirror_or_network_mnist_says_what_to_do() -> None:
    assert not is_cached("mnist")
    with pytest.raises(ConfigError) as caught:
        load_tfds("mnist")
    assert "'mnist' is not cached and its host did not answer" in str(caught.value)
    assert "--mirror" in str(caught.value)
    assert "\n" not in str(caught.value)


# The probe.


def test_a_host_that_hangs_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*args: Any, **kwargs: Any) -> None:
        over.wait(60)
        raise TimeoutError

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    start = time.monotonic()
    try:
        assert reachable("mnist", timeout=0.2) is False
        assert 0.15 < time.monotonic() - start < 2
    finally:
        over.set()


def test_the_probe_has_a_limit_of_a_few_seconds() -> None:
    assert 0 < tfds_images.PROBE_SECONDS <= 3.5


class Answer:
    """What `urlopen` gives back."""

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(), True),
        (urllib.error.HTTPError("http://host", 403, "forbidden", http.client.HTTPMessage(), None), True),
        (urllib.error.URLError("no such host"), False),
        (ConnectionResetError("reset"), False),
        (TimeoutError("timed out"), False),
        (http.client.BadStatusLine("garbage"), True),
    ],
    ids=["answer", "forbidden", "no host", "reset", "timed out", "no HTTP"],
)
def test_any_answer_counts_and_only_an_answer(answer: object, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def urlopen(*args: Any, **kwargs: Any) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert reachable("mnist", timeout=2.0) is expected
