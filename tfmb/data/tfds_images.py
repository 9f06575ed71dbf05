"""Image classification datasets through TensorFlow Datasets, MNIST first among them.

TFDS downloads, checks and prepares; here the prepared records are decoded once into a `.npy` cache.
"""

import contextlib
import hashlib
import http.client
import importlib
import io
import os
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.data.source import Normalization, Source, Splits
from tfmb.errors import ConfigError, DataError, first_line
from tfmb.storage.cache import cache_root, is_folder, load_arrays, save_arrays
from tfmb.storage.files import sha256_of

__all__ = ["PROBE_SECONDS", "is_cached", "load_tfds", "mirror_from_environment", "reachable"]

PROBE_SECONDS = 3.0
MIRROR_VARIABLE = "TFMB_MNIST_MIRROR"

# The official images with their labels, in any order (TFDS shuffles when it prepares): see `_digest_of_rows`.
_MNIST_DIGESTS = {
    "train": "386a0fff07efe9ae3f934853780556ca1fe630371d4964508a3e3256c2063b0e",
    "test": "292a2c8e9008782f6c6c94df46012a17c808c2666413d175e62502bbcf68dd61",
}
_MNIST_NORMALIZATION = Normalization(mean=0.1307, std=0.3081)
_EPOCHS = 5


def mirror_from_environment() -> str | None:
    """The folder named by `TFMB_MNIST_MIRROR`, or None."""
    return os.environ.get(MIRROR_VARIABLE) or None


def is_cached(name: str) -> bool:
    """Whether `load_tfds(name)` needs no network: decoded here before, or prepared by TFDS before."""
    if _decoded_folder(name) is not None:
        return True
    try:
        with _quiet():
            return _prepared_version(_builder(name)) is not None
    except ConfigError:
        return False


def reachable(name: str, timeout: float = PROBE_SECONDS) -> bool:
    """Whether the first host that TFDS would fetch `name` from answers within `timeout` seconds.

    TFDS itself would try for minutes before it gave up. Any answer counts, an HTTP error too.
    """
    with _quiet():
        urls = list(_builder(name).url_infos)
    urls = urls or ["https://storage.googleapis.com/tfds-data"]
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(urls[0], method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=timeout):
                answered.set()
        except (urllib.error.HTTPError, http.client.HTTPException):
            answered.set()  # an answer, if no good one
        except OSError:
            pass

    # A thread, because resolving a name has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answered.is_set()


def load_tfds(name: str, mirror: str | Path | None = None) -> Splits:
    """Loads a TFDS image classification dataset into memory.

    Args:
        name: a name TFDS knows (`"mnist"`, `"fashion_mnist"`, ...), or one prepared in its data folder.
        mirror: a folder that holds the files TFDS would download; no network is used then.

    Returns:
        The `train` and `test` splits (`validation` if there is no `test`) as uint8 images.

    Raises:
        ConfigError: TFDS does not know the name, it is no image classification set of one image size, or it
            can be neither found nor fetched.
        DataError: the mirror or the prepared files are incomplete or fail their checksums.
    """
    if mirror is not None and not is_folder(Path(mirror)):  # even where the cache would do: it was asked for
        raise DataError(f"mirror {mirror}: no such folder: give the folder with the files TFDS would download")
    arrays = None
    if folder := _decoded_folder(name):
        arrays = load_arrays(folder)
    origin = f"TFDS {name}, from the cache {folder}"
    if arrays is None:
        with _quiet():
            arrays, origin = _decode(name, mirror)
    splits = _to_splits(name, arrays, origin)
    if name == "mnist":
        for split, expected in _MNIST_DIGESTS.items():
            if _digest_of_rows(getattr(splits, split)) != expected:
                where = folder or _builder(name).data_dir
                raise DataError(f"mnist: the decoded {split} split is not the official one: delete {where}")
    return splits


def _digest_of_rows(source: Source) -> str:
    """SHA-256 over the sorted rows (pixels, then label): the same for every order of the same examples."""
    rows = np.column_stack([source.examples.reshape(source.size, -1), source.labels.astype(np.uint8)])
    keys = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1]))).reshape(-1)
    return hashlib.sha256(np.sort(keys).tobytes()).hexdigest()


def _decoded_folder(name: str) -> Path | None:
    """The newest decoded version in our cache, found without importing TFDS."""
    folders = sorted((cache_root() / "datasets" / name.replace("/", "-").replace(":", "-")).glob("[0-9]*"))
    return folders[-1] if folders else None


def _builder(name: str) -> Any:
    tfds = _import_tfds()
    try:
        return tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ValueError, TypeError, AssertionError, ImportError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"unknown dataset {name!r} ({first[:120]}): give auto, mnist, digits, a folder of IDX files, "
            "or a name from `tfds.list_builders()`"
        ) from error


def _import_tfds() -> Any:
    importlib.import_module("tfmb.backend")  # TFDS imports TensorFlow: our checks come first
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    return tfds


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what TFDS prints and logs of its own accord off the user's screen; errors still raise."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)


def _prepared_version(builder: Any) -> str | None:
    return str(builder.version) if builder.is_prepared() else None


def _decode(name: str, mirror: str | Path | None) -> tuple[dict[str, np.ndarray], str]:
    builder = _builder(name)
    features = builder.info.features
    keys = builder.info.supervised_keys
    if not keys or type(features[keys[0]]).__name__ != "Image" or type(features[keys[1]]).__name__ != "ClassLabel":
        raise ConfigError(f"dataset {name!r} is no image classification set: give one with an image and a label")
    if None in features[keys[0]].shape or features[keys[0]].np_dtype != np.uint8:
        raise ConfigError(
            f"dataset {name!r} has images of shape {features[keys[0]].shape}: tfmb loads uint8 images of one size; "
            "resize them yourself and pass --dataset module:function"
        )
    if _prepared_version(builder):
        origin = f"TFDS {builder.info.full_name}, prepared in {builder.data_dir}"
    elif mirror is not None:
        _prepare_from_mirror(builder, Path(mirror))
        origin = f"TFDS {builder.info.full_name}, prepared from the mirror {mirror}"
    else:
        _prepare_from_network(builder, name)
        origin = f"TFDS {builder.info.full_name}, downloaded"
    arrays = _read(builder, name, keys)
    arrays["num_classes"] = np.asarray(features[keys[1]].num_classes)
    folder = cache_root() / "datasets" / name.replace("/", "-").replace(":", "-") / str(builder.version)
    # The cache saves seconds, no more: a full or read-only disk there must not stop a run that has its data.
    with contextlib.suppress(OSError):
        save_arrays(folder, arrays)
    return arrays, origin


def _prepare_from_mirror(builder: Any, mirror: Path) -> None:
    tfds = _import_tfds()
    _check_mirror(builder, mirror)
    config = tfds.download.DownloadConfig(
        manual_dir=str(mirror), try_download_gcs=False, force_checksums_validation=True
    )
    _prepare(builder, config, f"mirror {mirror}")


def _check_mirror(builder: Any, mirror: Path) -> None:
    """Compares sizes and SHA-256 before TFDS does, for a line that names the file and both values."""
    paths = {mirror / (info.filename or url.rsplit("/", 1)[-1]): info for url, info in builder.url_infos.items()}
    if missing := [path.name for path in paths if not path.is_file()]:
        raise DataError(f"mirror {mirror}: {', '.join(missing)} missing: give a folder with the official files")
    for path, info in paths.items():
        size, expected = path.stat().st_size, int(info.size)
        if size > 2 * expected + 2**20:  # not worth the time to read it
            raise DataError(f"{path}: wrong size ({size} bytes, expected {expected}): fetch the file again")
        found = sha256_of(path)
        if found != info.checksum:
            raise DataError(
                f"{path}: wrong checksum (sha256 {found[:16]}..., {size} bytes; "
                f"expected {info.checksum[:16]}..., {expected} bytes): fetch the file again"
            )


def _prepare_from_network(builder: Any, name: str) -> None:
    tfds = _import_tfds()
    if not reachable(name):
        raise ConfigError(
            f"dataset {name!r} is not cached and its host did not answer within {PROBE_SECONDS:.0f} s: "
            "connect to the network, or give --mirror FOLDER with the official files"
        )
    _prepare(builder, tfds.download.DownloadConfig(try_download_gcs=False), "download")


def _prepare(builder: Any, config: Any, what: str) -> None:
    tfds = _import_tfds()
    try:
        builder.download_and_prepare(download_config=config)
    except tfds.download.DownloadError as error:  # pragma: no cover - needs a network that breaks mid-way
        raise DataError(f"{builder.name}: {what} failed ({first_line(error)}): try again") from error
    except Exception as error:
        if type(error).__name__ in {"NonMatchingChecksumError", "BadZipFile", "BadGzipFile"}:
            raise DataError(f"{builder.name}: {what} failed its checksums: fetch the files again") from error
        if isinstance(error, (OSError, EOFError, ValueError)):
            raise DataError(f"{builder.name}: {what} failed ({first_line(error)})") from error
        raise


def _read(builder: Any, name: str, keys: tuple[str, str]) -> dict[str, np.ndarray]:
    from tfmb.backend import tf

    tfds = _import_tfds()
    splits = builder.info.splits
    test = next((split for split in ("test", "validation") if split in splits), None)
    if "train" not in splits or test is None:
        raise ConfigError(f"dataset {name!r} has the splits {sorted(splits)}: tfmb needs train, and test or validation")
    arrays: dict[str, np.ndarray] = {}
    try:
        for ours, theirs in (("train", "train"), ("test", test)):
            config = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
            records = builder.as_dataset(split=theirs, as_supervised=True, read_config=config)
            batches = list(records.batch(1000).as_numpy_iterator())
            arrays[f"{ours}_images"] = np.concatenate([images for images, _ in batches])
            arrays[f"{ours}_labels"] = np.concatenate([labels for _, labels in batches]).astype(np.int64)
    except (tf.errors.OpError, OSError, ValueError) as error:
        raise DataError(f"{name}: the prepared files in {builder.data_dir} cannot be read: delete them") from error
    return arrays


def _to_splits(name: str, arrays: dict[str, np.ndarray], origin: str) -> Splits:
    num_classes = int(arrays["num_classes"])
    train, test = (
        Source.from_arrays(
            arrays[f"{split}_images"],
            arrays[f"{split}_labels"],
            num_classes=num_classes,
            name=f"{name}/{split}",
        )
        for split in ("train", "test")
    )
    normalization = _MNIST_NORMALIZATION if name == "mnist" else Normalization.measure(train.examples)
    return Splits(train=train, test=test, normalization=normalization, epochs=_EPOCHS, origin=origin)
