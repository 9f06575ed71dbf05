"""`tfmb.export`: a SavedModel with named signatures, checked in a fresh process before it gets its version number."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfmb.backend import keras as keras_module
from tfmb.backend import tf
from tfmb.environment.requirements import need_folder
from tfmb.errors import ConfigError, DataError, StorageError
from tfmb.optimizers.interop import keras_rate
from tfmb.optimizers.keras_config import config_of
from tfmb.runs.run_dir import hash_weights, versions
from tfmb.serving import provenance as provenance_of_export
from tfmb.serving.allowed_ops import check_operations
from tfmb.serving.comparison import answers_in_fresh_process, compare, largest_difference
from tfmb.serving.run_saved_model import sample_rows
from tfmb.serving.signatures import ServedModel, ends_in_logits
from tfmb.serving.versions import check_is_no_version, publish, temporary_in, version_before
from tfmb.serving.warmup import write_warmup
from tfmb.serving.weights import exported_weights, writes
from tfmb.storage.checksums import write_sums
from tfmb.types import KerasModel

__all__ = ["Export", "Options", "export", "write_export"]

KERAS_FILE = "model.keras"
_ROWS_VERIFIED = 4
_ROWS_COMPARED = 256  # of made-up rows
_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of an export: the arguments of `export` of these names.

    Attributes:
        logits: whether the model ends in a classifier's logits; None asks its compiled loss.
        batch_size: rows of every request; None for any number.
        weights: `"ema"`, `"raw"`, or None.
        keras: whether to write `model.keras` too.
        against: the version to compare with, or None.
        samples: rows to compare on, or None.
    """

    logits: bool | None = None
    batch_size: int | None = None
    weights: str | None = None
    keras: bool = False
    against: str | Path | None = None
    samples: Any = None


@dataclass(frozen=True, kw_only=True)
class Export:
    """A new version of an export.

    Attributes:
        folder: where it lies.
        record: its provenance: the content of `assets.extra/tfmb.json`.
    """

    folder: Path
    record: dict[str, Any]


def export(
    model: KerasModel,
    filepath: str | Path,
    *,
    logits: bool | None = None,
    batch_size: int | None = None,
    weights: str | None = None,
    keras: bool = False,
    against: str | Path | None = None,
    samples: Any = None,
    provenance: dict[str, Any] | None = None,
) -> Path | None:
    """Writes a model as a SavedModel in the next free `filepath/<version>/`, where TensorFlow Serving looks for it.

    The signature `serving_default` takes the model's inputs by name, as they are stored (preprocessing inside the
    model is part of it). A model with one image input also has the signature `serve_bytes`. It takes `image_bytes`:
    strings `[batch]` of PNG or JPEG files, which are resized to the model's size. Names are the keys of dicts, or the
    names that you gave to `keras.Input` and to the layers of the outputs. Names that Keras made up are replaced by
    `input`, or `input_1`, ... and `output`, ...

    The version also has `SHA256SUMS` over all files, the record of its origin (`assets.extra/tfmb.json`), and requests
    with which TensorFlow Serving warms up. If there are several workers, the first one writes.

    Args:
        model: a built `keras.Model`.
        filepath: the model's folder, in which the versions 1, 2, ... lie. It is not the version's own folder, which
            `keras.Model.export` takes.
        logits: whether the single output is the logits of a classifier, `[batch, classes]`. If so, the signatures
            answer `logits`, `probabilities` and `class_id` (int64). If not, they answer the model's outputs by name.
            None asks the compiled loss (`from_logits`).
        batch_size: the number of rows that every request must have; None for any number.
        weights: `"ema"` for the moving averages, `"raw"` for the weights without them, None for the weights that the
            model has. After `tfmb.fit` with `use_ema=True` these are the averages.
        keras: whether to write `model.keras` beside the SavedModel.
        against: the folder of a version to compare with, or `"latest"` for the newest one in `filepath`. The record
            then says how far the outputs differ.
        samples: rows of the inputs, as the model takes them, to compare on; None makes rows up. For a subclassed model
            they also give the inputs' shapes and dtypes.
        provenance: entries on the training for the record: any of `batch_size`, `learning_rate`, `optimizer`
            (`class` and configuration), `seed`, `data` (`fingerprint`, ...), `metrics` and `noise_scale`. The other
            entries come from the model: the optimizer it was compiled with, and the last logs of its History.

    Returns:
        The folder of the new version; None for a worker that is not the first. It was loaded in a fresh process, which
        gave the same outputs.

    Raises:
        ConfigError: the model is not built, an argument does not suit it, or `filepath` is a finished version.
        DirectoryError: the folder cannot be made or written.
        DataError: the SavedModel gives other outputs than the model, or the version before is damaged.
        StorageError: the disk is full or fails. Nothing of the version is left.

    Example:
        >>> folder = tfmb.export(model, "saved_models/mine")  # saved_models/mine/1, then 2, ...
        >>> served = tf.saved_model.load(str(folder)).signatures["serving_default"]
        >>> sorted(served(tf.constant(x[:5])))
        ['class_id', 'logits', 'probabilities']
    """
    if not isinstance(model, keras_module.Model) or not model.built:
        raise ConfigError("export needs a built keras.Model: call it on data, or give it an Input, first")
    options = Options(
        logits=logits, batch_size=batch_size, weights=weights, keras=keras, against=against, samples=samples
    )
    made = write_export(model, filepath, {**_told_by(model), **(provenance or {})}, options)
    return None if made is None else made.folder


def write_export(model: KerasModel, filepath: str | Path, told: dict[str, Any], options: Options) -> Export | None:
    """Writes an export, as `export` does, with all facts on the training given by the caller.

    Args:
        model: a built `keras.Model`.
        filepath: the model's folder.
        told: entries of the record: see `provenance.make`.
        options: the options of the export.

    Returns:
        The new version; None for a worker that is not the first.

    Raises:
        ConfigError: an argument that does not suit the model, or `filepath` is a finished version.
        DirectoryError: the folder cannot be made or written.
        DataError: the SavedModel does not give what the model gives, or the version before is damaged.
        StorageError: the disk is full or fails.
    """
    if not writes(model):
        return None
    folder = Path(filepath).expanduser()
    check_is_no_version(folder)
    need_folder("folder", folder)
    before = None if options.against is None else _checked(version_before(options.against, folder))
    with exported_weights(model, options.weights) as kind:
        logits = ends_in_logits(model) if options.logits is None else options.logits
        served = ServedModel(model, logits, options.batch_size, options.samples)
        with temporary_in(folder) as temporary, _telling_of_the_disk(folder):
            tf.saved_model.save(served.state, str(temporary), signatures=served.signatures)
            if options.keras:
                model.save(temporary / KERAS_FILE)
            facts = {
                "versions": _versions(),
                "model": {"name": model.name, "parameters": int(model.count_params())},
                "weights": {"kind": kind, "sha256": hash_weights(model.get_weights())},
                "signatures": served.describe(),
                "verification": _verify(temporary, served),
                "comparison": before and compare(before, temporary, served, options.samples, _ROWS_COMPARED),
            }
            record = provenance_of_export.make(told, facts)
            provenance_of_export.write(temporary, record)
            write_warmup(temporary, served, folder.resolve().name)
            write_sums(temporary)
            return Export(folder=publish(temporary, folder), record=record)


@contextlib.contextmanager
def _telling_of_the_disk(folder: Path) -> Iterator[None]:
    """Turns an error of writing into a `StorageError`: TensorFlow uses one class for a full disk and a full memory.

    Raises:
        StorageError: TensorFlow or the system could not write.
    """
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0][:150]
        raise StorageError(f"{folder} cannot be written ({reason}): the export is not made") from error


def _verify(folder: Path, served: ServedModel) -> dict[str, Any]:
    """Loads the SavedModel in a new Python without tfmb or Keras and compares its outputs with the model's.

    Raises:
        DataError: it cannot be used there, or answers otherwise.
    """
    rows = sample_rows(served.inputs, _ROWS_VERIFIED)
    answer = served.signatures["serving_default"](**{name: tf.constant(value) for name, value in rows.items()})
    expected = {name: value.numpy() for name, value in answer.items()}
    found = answers_in_fresh_process(folder, rows)
    worst = 0.0
    for name, value in expected.items():
        error, scale = largest_difference(found[name], value)
        if not error <= _TOLERANCE * scale:
            raise DataError(f"{folder}: the SavedModel's {name} differ by {error:.3g} in a fresh process")
        worst = max(worst, error)
    return {"rows": len(next(iter(rows.values()))), "max_difference": worst}


def _checked(before: Path) -> Path:
    """Returns a version that may be loaded: whole if it has checksums, with operations that only compute."""
    if provenance_of_export.is_signed(before):
        provenance_of_export.check_export(before)
    check_operations(before)
    return before


def _told_by(model: KerasModel) -> dict[str, Any]:
    """Returns a model's own facts on its training: its compiled optimizer, and the last logs of its History."""
    optimizer = getattr(model, "optimizer", None)
    told = {} if optimizer is None else _told_by_optimizer(getattr(optimizer, "inner_optimizer", optimizer))
    logs = getattr(getattr(model, "history", None), "history", None) or {}
    if metrics := {key: float(values[-1]) for key, values in logs.items() if values and _is_number(values[-1])}:
        told["metrics"] = metrics
    return told


def _told_by_optimizer(optimizer: Any) -> dict[str, Any]:
    """Returns the optimizer's class and its plain configuration; a rate that is the user's function is left out."""
    config = config_of(optimizer)
    if "learning_rate" in config:
        rate = keras_rate(optimizer)
        config["learning_rate"] = (
            rate if isinstance(rate, float) else {"class": type(rate).__name__, **rate.get_config()}
        )
    plain = {key: value for key, value in config.items() if key != "name" and _is_json(value)}
    return {"optimizer": {"class": type(optimizer).__name__, **plain}, "learning_rate": plain.get("learning_rate")}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _versions() -> dict[str, str]:
    names = ("tfmb", "tensorflow", "keras", "numpy", "python", "platform")
    return {name: version for name, version in versions().items() if name in names}
