"""Names the class of image files, or of rows of a run's own data, by a run's model or an exported one."""

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.backend import tf
from tfmb.errors import ConfigError, DataError
from tfmb.jobs.restore import RestoredRun
from tfmb.serving.allowed_ops import check_operations
from tfmb.serving.provenance import check_export, is_signed
from tfmb.serving.signatures import decode_image
from tfmb.serving.versions import newest_version
from tfmb.storage.files import check_plain, read_plain

__all__ = ["ClassPrediction", "ExportedClassifier", "RunClassifier", "check_images", "is_row"]

_MOST_IMAGE_BYTES = 256 * 2**20
_ROW = re.compile(r"(train|test):(\d{1,18})")


@dataclass(frozen=True, kw_only=True)
class ClassPrediction:
    """The answer for one image.

    Attributes:
        image: as the user named it.
        class_id: the most probable class.
        probability: the model's, in [0, 1].
        label: the true class where it is known, else None.
    """

    image: str
    class_id: int
    probability: float
    label: int | None = None

    def __str__(self) -> str:
        known = "" if self.label is None else f"  label {self.label}"
        return f"{self.image}  class {self.class_id}  probability {self.probability:.4f}{known}"

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return {key: value for key, value in vars(self).items() if value is not None}


class RunClassifier:
    """A run's model.

    Args:
        run: restored.
        data: the user's `module:load`, for rows of a run on data of the user's own.
        mirror: a folder with the files that TFDS would download, for rows.

    Raises:
        ConfigError: the model does not take one image and give one score a class.
    """

    def __init__(self, run: RestoredRun, data: str | None = None, mirror: str | None = None) -> None:
        self._run, self._data, self._mirror = run, data, mirror
        shape = tuple(run.model.input_shape[1:]) if isinstance(run.model.input_shape, tuple) else ()
        self._shape = _checked_shape(shape, run.name)
        self._splits: Any = None

    def predict(self, images: Sequence[str], *, invert: bool = False) -> list[ClassPrediction]:
        """Answers in the images' order.

        Args:
            images: paths of PNG, JPEG, GIF or BMP files, or `test:ROW` and `train:ROW` of the run's data.
            invert: whether to turn the grey values of files round.

        Raises:
            DataError: a file is missing or no image, or a row does not exist.
            ConfigError: the model's output is not one score a class.
        """
        loaded = [self._load(image, invert) for image in images]
        outputs = self._run.model(tf.constant(np.stack([pixels for pixels, _ in loaded])), training=False)
        if not tf.is_tensor(outputs) or outputs.shape.rank != 2:
            raise ConfigError(f"{self._run.name} is no classifier: its model does not give one score a class")
        scores = outputs.numpy()
        if self._run.logits or not _are_probabilities(scores):
            scores = tf.nn.softmax(scores).numpy()
        return _predictions(images, scores, [label for _, label in loaded])

    def _load(self, image: str, invert: bool) -> tuple[np.ndarray, int | None]:
        row = _ROW.fullmatch(image)
        if row is None or not is_row(image):
            return read_image(image, self._shape, invert), None
        if self._splits is None:
            self._splits = self._run.splits(self._data, self._mirror)
        source, index = getattr(self._splits, row[1]), int(row[2])
        if source is None or index >= source.size:
            size = 0 if source is None else source.size
            raise DataError(f"{image}: the {row[1]} split has {size} rows: give a row from 0 to {size - 1}")
        return source.examples[index], None if source.num_classes is None else int(source.labels[index])


class ExportedClassifier:
    """An exported SavedModel. It is checked before it is loaded, and what may do more than compute is not loaded.

    Args:
        folder: one version, or a model's folder, whose highest version is taken.

    Attributes:
        folder: that version.
        provenance: the content of its record; None for one that is unverified, as it has no checksums.

    Raises:
        DataError: there is no SavedModel there, or a file of it is damaged, missing or more.
        ConfigError: it does not take one image.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = newest_version(folder)
        self.provenance = check_export(self.folder) if is_signed(self.folder) else None
        check_operations(self.folder)
        try:
            self._model = tf.saved_model.load(str(self.folder))
        except Exception as error:  # a damaged SavedModel raises many kinds
            raise DataError(f"{self.folder} cannot be loaded ({str(error).splitlines()[0][:150]})") from error
        served = self._model.signatures.get("serving_default")
        if served is None:
            raise DataError(f"{self.folder} has no signature serving_default: export it with `tfmb export`")
        self._served = served
        _, inputs = served.structured_input_signature
        spec = next(iter(inputs.values())) if len(inputs) == 1 else None
        if spec is None or "probabilities" not in served.structured_outputs:
            raise ConfigError(f"{self.folder} is no image classifier with probabilities")
        self._name, self._dtype, self._batch_size = next(iter(inputs)), spec.dtype, spec.shape[0]
        self._shape = _checked_shape(tuple(spec.shape[1:]), str(self.folder))

    def predict(self, images: Sequence[str], *, invert: bool = False) -> list[ClassPrediction]:
        """As `RunClassifier.predict`, of files only."""
        for image in images:
            if is_row(image):
                raise ConfigError(f"{image}: an export has no data: give --run, or a file")
        pixels = np.stack([read_image(image, self._shape, invert) for image in images])
        size = self._batch_size or len(pixels)
        parts = [self._scores(pixels[start : start + size]) for start in range(0, len(pixels), size)]
        return _predictions(images, np.concatenate(parts), [None] * len(images))

    def _scores(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities of at most a batch, which is filled up where it must have a size."""
        more = (self._batch_size or len(pixels)) - len(pixels)
        filled = np.concatenate([pixels, np.zeros((more, *pixels.shape[1:]), pixels.dtype)])
        answer = self._served(**{self._name: tf.cast(filled, self._dtype)})["probabilities"]
        scores: np.ndarray = answer.numpy()[: len(pixels)]
        return scores


def is_row(image: str) -> bool:
    """Whether a name is that of a row of data, such as `test:0`, and not that of a file."""
    return _ROW.fullmatch(image) is not None and not Path(image).exists()


def check_images(images: Sequence[str]) -> None:
    """Looks whether the files that are to be named exist, before a model is built for them.

    Args:
        images: as `predict` takes them; rows of data are not looked at.

    Raises:
        DataError: one cannot be read.
    """
    for image in images:
        try:
            if Path(image).is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not is_row(image):
                check_plain(image)
        except OSError as error:
            raise DataError(f"{image} cannot be read ({error.strerror}): give a PNG or JPEG file") from error


def read_image(path: str, shape: tuple[int, int, int], invert: bool = False) -> np.ndarray:
    """A file as uint8 pixels of `shape`, grey or colour and resized as the shape asks.

    Raises:
        DataError: it is missing, unreadable or no image.
    """
    try:
        contents = read_plain(path, _MOST_IMAGE_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give a PNG or JPEG file") from error
    try:
        pixels = decode_image(tf.constant(contents), shape).numpy()
    except (tf.errors.InvalidArgumentError, ValueError) as error:
        raise DataError(f"{path} is no image that can be read: give a PNG or JPEG file") from error
    return 255 - pixels if invert else pixels


def _predictions(images: Sequence[str], scores: np.ndarray, labels: list[int | None]) -> list[ClassPrediction]:
    best = scores.argmax(axis=-1)
    return [
        ClassPrediction(image=image, class_id=int(best[i]), probability=float(scores[i, best[i]]), label=labels[i])
        for i, image in enumerate(images)
    ]


def _are_probabilities(scores: np.ndarray) -> bool:
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=-1), 1.0, atol=1e-4))


def _checked_shape(shape: tuple[Any, ...], name: str) -> tuple[int, int, int]:
    if len(shape) != 3 or None in shape or shape[2] not in (1, 3):
        raise ConfigError(f"{name} does not take one image: predict needs a model of [batch, height, width, 1 or 3]")
    return shape
