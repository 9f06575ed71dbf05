"""`tfmb.export`: a SavedModel with named signatures, compared in a fresh process before it gets its version number."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError, DataError, DirectoryError
from tfmb.optimizers.optimizer import raw_variable
from tfmb.training.commit import sync
from tfmb.training.outputs import flatten_outputs

__all__ = ["export"]

_ROWS_COMPARED = 4
_TOLERANCE = 1e-6


def export(model: Any, filepath: str | Path, *, logits: bool | None = None) -> Path:
    """Writes a model as a SavedModel in the next free `filepath/<version>/`, where TensorFlow Serving looks for it.

    The signature `serving_default` takes the model's inputs by name, as they are stored (preprocessing inside the
    model is part of it). For one image input there is also `serve_bytes`: `image_bytes`, strings `[batch]` of PNG or
    JPEG files, resized to the model's size.

    Args:
        model: a built `keras.Model`.
        filepath: the model's folder; versions 1, 2, ... lie in it.
        logits: whether the single output is the logits of a classifier, `[batch, classes]`: the signatures then
            answer `logits`, `probabilities` and `class_id` (int64). None asks the compiled loss (`from_logits`).
            Otherwise they answer the model's outputs by name.

    Returns:
        The folder of the new version. It was loaded in a fresh process, which gave the same outputs.

    Raises:
        ConfigError: no built model, or `logits` for a model that has no such output.
        DirectoryError: the folder cannot be made or written.
        DataError: the SavedModel does not give what the model gives.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise ConfigError("export needs a built keras.Model: call it on data, or give it an Input, first")
    folder = Path(filepath).expanduser()
    served = _ServedModel(model, _ends_in_logits(model) if logits is None else logits)
    with _temporary_in(folder) as temporary:
        tf.saved_model.save(served.state, str(temporary), signatures=served.signatures)
        _compare_in_fresh_process(temporary, served)
        return _publish(temporary, folder)


class _ServedModel:
    """A model's variables and the functions that its SavedModel offers."""

    def __init__(self, model: Any, logits: bool) -> None:
        # Variables only: the signatures are all of the model that a server needs.
        self.state = tf.Module()
        self.state.weights = [raw_variable(v) for v in model.variables]
        self._model = model
        self._logits = logits
        self.inputs = input_specs(model)
        serve = tf.function(self._serve, autograph=False)
        self.signatures = {"serving_default": serve.get_concrete_function(**self.inputs)}
        if shape := image_shape(self.inputs):
            self._shape = shape
            strings = tf.TensorSpec([None], tf.string, name="image_bytes")
            serve_bytes = tf.function(self._serve_bytes, autograph=False)
            self.signatures["serve_bytes"] = serve_bytes.get_concrete_function(image_bytes=strings)

    def _serve(self, **inputs: Any) -> dict[str, Any]:
        outputs = self._model(_as_the_model_takes_them(self._model, inputs), training=False)
        names, tensors = flatten_outputs(outputs, getattr(self._model, "output_names", None))
        if not self._logits:
            return dict(zip(names, tensors, strict=True))
        if len(tensors) != 1 or tensors[0].shape.rank != 2:
            raise ConfigError("logits=True needs a model with one output [batch, classes]")
        return {
            "logits": tensors[0],
            "probabilities": tf.nn.softmax(tensors[0]),
            "class_id": tf.argmax(tensors[0], -1),
        }

    def _serve_bytes(self, image_bytes: Any) -> dict[str, Any]:
        (name, spec), *_ = self.inputs.items()
        pixels = tf.map_fn(
            lambda image: decode_image(image, self._shape),
            image_bytes,
            fn_output_signature=tf.TensorSpec(self._shape, tf.uint8),
        )
        return self._serve(**{name: tf.cast(pixels, spec.dtype)})


def decode_image(contents: Any, shape: tuple[int, int, int]) -> Any:
    """A PNG, JPEG, GIF or BMP file's bytes (a string scalar) as uint8 pixels of `shape`, resized where needed."""
    image = tf.io.decode_image(contents, channels=shape[2], expand_animations=False)
    image.set_shape([None, None, shape[2]])
    same = tf.reduce_all(tf.equal(tf.shape(image)[:2], shape[:2]))
    resized = tf.cond(
        same,
        lambda: tf.cast(image, tf.float32),
        lambda: tf.image.resize(image, shape[:2], antialias=True),
    )
    return tf.ensure_shape(tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8), shape)


def input_specs(model: Any) -> dict[str, Any]:
    """The model's inputs by name, with a free batch axis.

    Raises:
        ConfigError: the model does not know its inputs' shapes.
    """
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ConfigError(f"the inputs of {model.name!r} are not known: build it from keras.Input, or call it first")
    names = _input_names(model, inputs)
    return {
        name: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, name=name)
        for name, tensor in zip(names, inputs, strict=True)
    }


def image_shape(inputs: dict[str, Any]) -> tuple[int, int, int] | None:
    """`(height, width, channels)` where there is one input and it is an image of one or three channels."""
    if len(inputs) != 1:
        return None
    shape = next(iter(inputs.values())).shape[1:]
    if shape.rank != 3 or None in shape or shape[2] not in (1, 3):
        return None
    return tuple(shape)


def _input_names(model: Any, inputs: Any) -> list[str]:
    structure = getattr(model, "_inputs_struct", None)
    if isinstance(structure, dict):
        return list(structure)  # flattened in this order by Keras
    return [tensor.name for tensor in inputs]


def _as_the_model_takes_them(model: Any, inputs: dict[str, Any]) -> Any:
    structure = getattr(model, "_inputs_struct", None)
    if isinstance(structure, dict):
        return {key: inputs[key] for key in structure}
    values = [inputs[name] for name in _input_names(model, model.inputs)]
    return values[0] if len(values) == 1 else values


def _ends_in_logits(model: Any) -> bool:
    """Whether the compiled loss is a class loss from logits."""
    config = getattr(getattr(model, "_compile_config", None), "config", None) or {}
    loss = config.get("loss")
    classes = (keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy)
    return isinstance(loss, classes) and bool(loss.get_config().get("from_logits"))


@contextlib.contextmanager
def _temporary_in(folder: Path) -> Iterator[Path]:
    temporary = folder / f".tmp-{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise DirectoryError(f"{folder} cannot be made or written ({error.strerror}): give another folder") from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, folder: Path) -> Path:
    """Gives the finished export the next free version number; nothing that is there is replaced."""
    for path in sorted(temporary.rglob("*")):
        sync(path)
    sync(temporary)
    while True:
        taken = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        target = folder / str(max(taken, default=0) + 1)
        try:
            target.mkdir()  # claims the number against another process
        except FileExistsError:
            continue
        temporary.rename(target)
        sync(folder)
        return target


def _compare_in_fresh_process(folder: Path, served: _ServedModel) -> None:
    """Loads the SavedModel in a new Python without tfmb or Keras and compares its outputs with the model's."""
    rows: dict[str, Any] = {name: _sample(spec) for name, spec in served.inputs.items()}
    expected = served.signatures["serving_default"](**{name: tf.constant(value) for name, value in rows.items()})
    with tempfile.TemporaryDirectory() as scratch:
        np.savez(Path(scratch) / "inputs.npz", **rows)
        command = [sys.executable, str(Path(__file__).with_name("_load_saved_model.py")), str(folder), scratch]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise DataError(f"{folder}: the SavedModel cannot be used in a fresh process ({last[:200]})")
        with np.load(Path(scratch) / "outputs.npz", allow_pickle=False) as found:
            for name, value in expected.items():
                error = float(np.max(np.abs(found[name].astype(np.float64) - np.asarray(value, np.float64)), initial=0))
                scale = max(1.0, float(np.max(np.abs(np.asarray(value, np.float64)), initial=0)))
                if not error <= _TOLERANCE * scale:
                    raise DataError(f"{folder}: the SavedModel's {name} differ by {error:.3g} in a fresh process")


def _sample(spec: Any) -> np.ndarray:
    """A few rows that the input can take: the same ones every time."""
    shape = [_ROWS_COMPARED, *(8 if size is None else size for size in spec.shape[1:])]
    dtype = spec.dtype.as_numpy_dtype
    numbers = np.random.default_rng(0)
    if spec.dtype.is_floating:
        return numbers.random(shape).astype(dtype)
    if spec.dtype == tf.string:
        return np.full(shape, b"text")
    # Small numbers: the input may be the index of an embedding of unknown size.
    return numbers.integers(0, 256 if spec.dtype == tf.uint8 else 2, shape).astype(dtype)
