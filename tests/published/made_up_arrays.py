"""Made-up files of arrays: those that `keras.datasets` reads, and some of the scripts' own."""

import gzip
import io
import json
import pickle
import tarfile
from functools import partial
from typing import Any

import numpy as np

__all__ = ["MAKERS"]

TRAIN, TEST = 1200, 200
_drawn = np.random.default_rng(0)


def _npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _pixels(rows: int, *shape: int) -> Any:
    return _drawn.integers(0, 256, (rows, *shape)).astype("uint8")


def _mnist() -> bytes:
    return _npz(
        x_train=_pixels(TRAIN, 28, 28),
        y_train=(np.arange(TRAIN) % 10).astype("uint8"),
        x_test=_pixels(TEST, 28, 28),
        y_test=(np.arange(TEST) % 10).astype("uint8"),
    )


def _idx(rows: int, images: bool) -> bytes:
    if images:
        header = np.array([2051, rows, 28, 28], ">i4").tobytes()
        return gzip.compress(header + _pixels(rows, 28, 28).tobytes())
    return gzip.compress(np.array([2049, rows], ">i4").tobytes() + (np.arange(rows) % 10).astype("uint8").tobytes())


def _tar(files: dict[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return whole.getvalue()


def _cifar(rows: int, **labels: int) -> bytes:
    batch: dict[bytes, Any] = {b"data": _pixels(rows, 3072)}
    for name, classes in labels.items():
        batch[name.encode()] = [row % classes for row in range(rows)]
    return pickle.dumps(batch)


def _cifar10() -> bytes:
    # Keras reads five files of 10,000 rows.
    files = {f"cifar-10-batches-py/data_batch_{number}": _cifar(10000, labels=10) for number in range(1, 6)}
    return _tar({**files, "cifar-10-batches-py/test_batch": _cifar(TEST, labels=10)})


def _cifar100() -> bytes:
    labels = {"fine_labels": 100, "coarse_labels": 20}
    return _tar({"cifar-100-python/train": _cifar(TRAIN, **labels), "cifar-100-python/test": _cifar(TEST, **labels)})


def _imdb() -> bytes:
    def texts(rows: int) -> Any:
        filled = np.empty(rows, object)
        filled[:] = [_drawn.integers(1, 5000, _drawn.integers(10, 250)).tolist() for _ in range(rows)]
        return filled

    halves = {"x_train": texts(600), "x_test": texts(TEST)}
    return _npz(**halves, y_train=np.arange(600) % 2, y_test=np.arange(TEST) % 2)


def _words() -> bytes:
    return json.dumps({f"word{number}": number for number in range(1, 5000)}).encode()


def _boston() -> bytes:
    return _npz(x=_drawn.random((506, 13)), y=_drawn.random(506) * 40)


def _nerf() -> bytes:
    poses = np.tile(np.eye(4, dtype="float32"), (106, 1, 1))
    return _npz(images=_drawn.random((106, 100, 100, 3)).astype("float32"), poses=poses, focal=np.array(138.9))


def _moving_mnist() -> bytes:
    file = io.BytesIO()
    np.save(file, _pixels(20, 100, 64, 64))
    return file.getvalue()


MAKERS = {
    "mnist.npz": _mnist,
    "train-images-idx3-ubyte.gz": partial(_idx, TRAIN, True),
    "train-labels-idx1-ubyte.gz": partial(_idx, TRAIN, False),
    "t10k-images-idx3-ubyte.gz": partial(_idx, TEST, True),
    "t10k-labels-idx1-ubyte.gz": partial(_idx, TEST, False),
    "cifar-10-python.tar.gz": _cifar10,
    "cifar-100-python.tar.gz": _cifar100,
    "imdb.npz": _imdb,
    "imdb_word_index.json": _words,
    "boston_housing.npz": _boston,
    "tiny_nerf_data.npz": _nerf,
    "mnist_test_seq.npy": _moving_mnist,
}
