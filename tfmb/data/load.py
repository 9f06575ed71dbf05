"""A dataset from its name: `auto`, `mnist`, `digits`, a folder of IDX files, or any TFDS image set."""

import os
from pathlib import Path
from typing import Any

from tfmb.data.digits import load_digits
from tfmb.data.idx import load_idx_folder
from tfmb.data.source import Normalization, Source, Splits
from tfmb.environment.imports import is_reference, load_function
from tfmb.errors import ConfigError, DataError
from tfmb.storage.cache import is_folder
from tfmb.types import Data

__all__ = ["load", "load_user_data"]

_USER_EPOCHS = 10


def load(name: str = "auto", mirror: str | Path | None = None) -> Splits:
    """Loads a dataset by name.

    Args:
        name: `"auto"` (MNIST where it is cached, mirrored or downloadable, else digits; which one, and why,
            stands in `Splits.origin`), `"mnist"`, `"digits"`, the path of a folder of IDX files (one that
            exists, or that begins with `.`, `/` or `~`), a TFDS name, or `package.module:load`: see
            `load_user_data`.
        mirror: a folder with the files that TFDS would download. Default: `TFMB_MNIST_MIRROR` for MNIST.

    Returns:
        The splits, in memory.

    Raises:
        ConfigError: the name is unknown, or the data can be neither found nor fetched.
        DataError: the data is damaged.

    Example:
        >>> tfmb.data.load("digits").train.num_classes
        10
    """
    if mirror is not None:
        if name == "digits" or (name not in ("auto", "mnist") and (_names_a_folder(name) or is_reference(name))):
            raise ConfigError(f"--mirror {mirror} holds files of TFDS, and {name} needs none: leave it out")
        if not is_folder(Path(mirror).expanduser()):
            raise DataError(f"mirror {mirror}: no such folder: give the one with the official files")
    if is_reference(name) and not _names_a_folder(name):
        return load_user_data(name)
    # TFDS takes seconds to import: only its own datasets pay for it.
    from tfmb.data import tfds_images

    if name == "auto":
        mirror = mirror or tfds_images.mirror_from_environment()
        if mirror or tfds_images.is_cached("mnist") or tfds_images.reachable("mnist"):
            return tfds_images.load_tfds("mnist", mirror)
        digits = load_digits()
        reason = "MNIST is neither cached nor mirrored, and its host did not answer"
        return Splits(**{**vars(digits), "origin": f"{digits.origin} (auto: {reason})"})
    if name == "digits":
        return load_digits()
    if mirror is None and _names_a_folder(name):
        return load_idx_folder(Path(os.path.expanduser(name)))  # leaves an unknown user's name as it is
    if name == "mnist":
        mirror = mirror or tfds_images.mirror_from_environment()
    return tfds_images.load_tfds(name, mirror)


def _names_a_folder(name: str) -> bool:
    return name.startswith((".", "~", os.sep)) or is_folder(Path(name))


def load_user_data(reference: str) -> Splits:
    """Calls the user's `module:function` and makes `Splits` of what it returns.

    Args:
        reference: `package.module:load`; the function takes no arguments and returns `(x, y)`, or
            `(x_train, y_train), (x_test, y_test)` as `keras.datasets` do, or a `tfmb.data.Splits`.

    Returns:
        The splits. One-dimensional integer labels are taken as classes; uint8 images `[n, h, w, c]` get their
        measured normalisation, anything else none.

    Raises:
        ConfigError: the function cannot be imported, or returns something else.
        DataError: the arrays make no sense.

    Example:
        >>> tfmb.data.load_user_data("mine:load").train.size  # the function `load` of mine.py
        200
    """
    data = load_function(reference, "--dataset")()
    if isinstance(data, Splits):
        return data
    (x_train, y_train), (x_test, y_test) = _unpack(data, reference)
    train = Source.from_arrays(x_train, y_train, name=f"{reference}/train")
    num_classes = _count_classes(train.labels)
    train = Source.from_arrays(x_train, y_train, num_classes=num_classes, name=f"{reference}/train")
    test = None
    if x_test is not None:
        test = Source.from_arrays(x_test, y_test, num_classes=num_classes, name=f"{reference}/test")
    return Splits(
        train=train,
        test=test,
        normalization=Normalization.measure(train.examples) if train.image_shape else None,
        epochs=_USER_EPOCHS,
        origin=f"the user's {reference}",
    )


def _unpack(data: Data, reference: str) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    if isinstance(data, (tuple, list)) and len(data) == 2:
        if all(isinstance(part, (tuple, list)) and len(part) == 2 for part in data):
            (x_train, y_train), (x_test, y_test) = data
            return (x_train, y_train), (x_test, y_test)
        return (data[0], data[1]), (None, None)
    raise ConfigError(
        f"--dataset {reference} returned {type(data).__name__}: return (x, y), or (x_train, y_train), (x_test, y_test)"
    )


def _count_classes(labels: Any) -> int | None:
    if getattr(labels, "ndim", None) != 1 or labels.dtype.kind not in "iu":
        return None
    if labels.min() < 0:
        raise DataError(f"label {labels.min()} is negative: number the classes 0, 1, 2, ...")
    return int(labels.max()) + 1
