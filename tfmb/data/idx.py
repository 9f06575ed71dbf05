"""IDX files, MNIST's own format: a magic number, the sizes, then the bytes. Read strictly, gzipped or not."""

import contextlib
import gzip
import io
import os
import zlib
from pathlib import Path

import numpy as np

from tfmb.data.source import Normalization, Source, Splits
from tfmb.errors import DataError
from tfmb.storage.cache import is_folder
from tfmb.storage.files import open_plain

__all__ = ["load_idx_folder", "read_idx"]

_UNSIGNED_BYTE = 0x08
# So many bytes are unpacked whatever they were packed to; beyond, no images pack better than this (MNIST's: 5 times).
_SURE_BYTES, _MOST_RATIO = 256 * 2**20, 100
_STEMS = {
    "train images": ("train-images-idx3-ubyte", "train-images.idx3-ubyte"),
    "train labels": ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"),
    "test images": ("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"),
    "test labels": ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"),
}


def read_idx(path: str | Path) -> np.ndarray:
    """Reads one IDX file of unsigned bytes.

    Args:
        path: the file; read as gzip if it starts with gzip's magic number, whatever its name.

    Returns:
        A uint8 array of the shape the header states.

    Raises:
        DataError: the file is missing or unreadable, is no IDX file of unsigned bytes, fails gzip's
            checksum, or is shorter or longer than its header says.
    """
    path = Path(path)
    try:
        with contextlib.ExitStack() as stack:
            plain = stack.enter_context(open_plain(path))
            size = os.fstat(plain.fileno()).st_size
            zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            file = stack.enter_context(gzip.GzipFile(fileobj=plain)) if zipped else plain
            header = file.read(4)
            if len(header) < 4 or header[:2] != b"\0\0" or header[2] != _UNSIGNED_BYTE or header[3] not in (1, 3, 4):
                raise DataError(
                    f"{path}: wrong magic number {header.hex() or '(empty file)'}: "
                    "expected 00000801 (labels) or 00000803 (images); fetch the file again"
                )
            sizes = file.read(4 * header[3])
            if len(sizes) < 4 * header[3]:
                raise DataError(f"{path}: the header is cut short: fetch the file again")
            shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
            expected = int(np.prod(shape, dtype=object))
            if expected > _SURE_BYTES and expected > (_MOST_RATIO if zipped else 1) * size:
                mend = "unpack it yourself if that is right" if zipped else "fetch the file again"
                raise DataError(
                    f"{path}: the header {'x'.join(map(str, shape))} promises {expected} bytes, which the file's "
                    f"{size} cannot hold: {mend}"
                )
            # One byte more than expected, read to the end: only there does gzip check its checksum.
            body = _read_up_to(file, expected + 1)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file: give a folder with the four IDX files") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(f"{path}: cannot be read ({reason}): fetch the file again") from error
    if len(body) != expected:
        found = f"more than {expected}" if len(body) > expected else str(len(body))
        raise DataError(
            f"{path}: the header {'x'.join(map(str, shape))} promises {expected} bytes, "
            f"the file holds {found}: fetch the file again"
        )
    try:
        return np.frombuffer(body, dtype=np.uint8).reshape(shape)
    except ValueError as error:  # no bytes, but sizes that no array can have
        raise DataError(
            f"{path}: the header {'x'.join(map(str, shape))} makes no sense: fetch the file again"
        ) from error


def _read_up_to(file: io.BufferedIOBase, limit: int) -> bytearray:
    """Reads in pieces: a forged header reserves no more memory than the file fills, and no byte is held twice."""
    body = bytearray()
    while len(body) < limit and (piece := file.read(min(limit - len(body), 1 << 20))):
        body += piece
    return body


def load_idx_folder(folder: str | Path) -> Splits:
    """Reads the four IDX files of a folder (`train-images-idx3-ubyte[.gz]` and so on).

    Args:
        folder: holds train and t10k images `[n, height, width]` and labels `[n]`.

    Returns:
        The splits; the number of classes is the largest train label plus 1 (each
        class must occur), and the normalisation is measured on the train images.

    Raises:
        DataError: as `read_idx`, or images and labels do not fit together.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise DataError(f"{folder}: no such folder: give one with the four IDX files")
    arrays = {part: read_idx(_find(folder, part)) for part in _STEMS}
    for part in ("train", "test"):
        images, labels = arrays[f"{part} images"], arrays[f"{part} labels"]
        if images.ndim < 3 or labels.ndim != 1 or len(images) != len(labels):
            raise DataError(
                f"{folder}: {part} images of shape {images.shape} do not fit labels of shape {labels.shape}: "
                "the files belong to different sets"
            )
        if not images.size:
            raise DataError(f"{folder}: the {part} images are empty: fetch the files again")
        if images.min() == images.max():
            raise DataError(f"{folder}: all {part} pixels are {images.flat[0]}: fetch the files again")
    if arrays["train images"].shape[1:] != arrays["test images"].shape[1:]:
        raise DataError(f"{folder}: train and test images have different sizes: the files belong to different sets")
    counts = np.bincount(arrays["train labels"])
    if not counts.all():
        raise DataError(
            f"{folder}: train labels reach {len(counts) - 1} but none is {int(np.argmin(counts))}: "
            "a label is out of range, or the classes are not numbered 0, 1, 2, ..."
        )
    num_classes = len(counts)
    train, test = (
        Source.from_arrays(
            _with_channel(arrays[f"{part} images"]),
            arrays[f"{part} labels"].astype(np.int64),
            num_classes=num_classes,
            name=f"{folder}/{part}",
        )
        for part in ("train", "test")
    )
    return Splits(
        train=train,
        test=test,
        normalization=Normalization.measure(train.examples),
        epochs=5,
        origin=f"IDX files in {folder}",
    )


def _with_channel(images: np.ndarray) -> np.ndarray:
    return images[..., np.newaxis] if images.ndim == 3 else images


def _find(folder: Path, part: str) -> Path:
    candidates = [folder / f"{stem}{ending}" for stem in _STEMS[part] for ending in ("", ".gz")]
    found = [path for path in candidates if path.exists()]
    if not found:
        raise DataError(f"{folder}: no {candidates[0].name}[.gz]: give a folder with the four IDX files")
    return found[0]
