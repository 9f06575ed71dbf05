"""The signatures of a SavedModel: functions whose inputs and outputs have the same names in every process."""

import keyword
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.choices import check_counts
from tfmb.errors import ConfigError
from tfmb.optimizers.optimizer import raw_variable
from tfmb.types import KerasModel, Layer

__all__ = ["ServedModel", "decode_image", "ends_in_logits", "image_shape", "samples_by_name"]

# Names that Keras numbers anew in each process, as those of `keras.Input(shape)`.
_GENERATED_INPUT = re.compile(r"(keras_tensor|input_layer|input)(_\d+)?")


class ServedModel:
    """A model's variables and the functions that its SavedModel offers.

    Inputs are named by the keys of a dict, or by `keras.Input(name=...)`; outputs by the keys of a dict, or by the
    layers they come from. If Keras made the name up, the place decides: `input`, or `input_1`, `input_2`, ...;
    `output`, or `output_1`, ... A character that is no letter, digit or `_` becomes `_`.

    Args:
        model: built.
        logits: whether the one output is a classifier's logits: see `tfmb.export`.
        batch_size: rows of every request; None for any number.
        samples: rows of the inputs as the model takes them, for one that does not know its inputs' shapes.

    Attributes:
        inputs: name -> `tf.TensorSpec`, in the model's order.
        keys: the model's own names for its inputs: keys of a dict, or None.
        outputs: the names in the model's order.
        signatures: name -> concrete function.
        state: the object that holds the variables.

    Raises:
        ConfigError: inputs or outputs that are nested, not known, have two of one name, or another batch size.
    """

    def __init__(self, model: KerasModel, logits: bool, batch_size: int | None = None, samples: Any = None) -> None:
        # Variables only: the signatures are all of the model that a server needs.
        self.state = tf.Module()
        self.state.weights = [raw_variable(v) for v in model.variables]
        self._model, self._logits = model, logits
        structure = _input_structure(model, samples)
        self.keys, leaves, self._pack = _flat(structure, "inputs")
        names = _names(self.keys, [_own_input_name(leaf) for leaf in leaves], "input")
        batch_size = _batch_size(leaves, batch_size)
        self.inputs = {
            name: tf.TensorSpec([batch_size, *leaf.shape[1:]], _dtype(leaf), name=name)
            for name, leaf in zip(names, leaves, strict=True)
        }
        self.outputs: list[str] = []
        self.signatures: dict[str, Any] = {}
        self._specs: dict[str, dict[str, Any]] = {}
        self._offer("serving_default", self._serve, self.inputs)
        if shape := image_shape(self.inputs):
            self._shape = shape
            strings = tf.TensorSpec([batch_size], tf.string, name="image_bytes")
            self._offer("serve_bytes", self._serve_bytes, {"image_bytes": strings})

    def describe(self) -> dict[str, Any]:
        """Name -> `inputs` and `outputs` of a signature in order, each with name, dtype and shape."""
        return {
            name: {
                "inputs": [_about(own, spec) for own, spec in self._specs[name].items()],
                "outputs": [_about(output, function.structured_outputs[output]) for output in self.outputs],
            }
            for name, function in self.signatures.items()
        }

    def _offer(self, name: str, function: Callable[..., Any], inputs: dict[str, Any]) -> None:
        self._specs[name] = inputs
        self.signatures[name] = tf.function(function, autograph=False).get_concrete_function(**inputs)

    def _serve(self, **inputs: Any) -> dict[str, Any]:
        answer = self._model(self._pack([inputs[name] for name in self.inputs]), training=False)
        keys, tensors, _ = _flat(answer, "outputs")
        if self._logits:
            if len(tensors) != 1 or tensors[0].shape.rank != 2:
                raise ConfigError("logits=True needs a model with one output [batch, classes]")
            logits = tensors[0]
            answer = {"logits": logits, "probabilities": tf.nn.softmax(logits), "class_id": tf.argmax(logits, -1)}
        else:
            names = _names(keys, _own_output_names(self._model, len(tensors)), "output")
            answer = dict(zip(names, tensors, strict=True))
        self.outputs = list(answer)
        return answer

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


def image_shape(inputs: dict[str, Any]) -> tuple[int, int, int] | None:
    """Returns `(height, width, channels)` if there is one input and it is an image of one or three channels."""
    if len(inputs) != 1:
        return None
    shape = next(iter(inputs.values())).shape[1:]
    if shape.rank != 3 or None in shape or shape[2] not in (1, 3):
        return None
    return tuple(shape)


def ends_in_logits(model: KerasModel) -> bool:
    """Whether the compiled loss is a class loss from logits."""
    config = getattr(getattr(model, "_compile_config", None), "config", None) or {}
    loss = config.get("loss")
    classes = (keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy)
    return isinstance(loss, classes) and bool(loss.get_config().get("from_logits"))


def samples_by_name(served: ServedModel, samples: Any) -> dict[str, np.ndarray]:
    """The user's rows, given as the model takes them, by the names of the inputs.

    Raises:
        ConfigError: they are not what it takes.
    """
    keys, leaves, _ = _flat(samples, "samples")
    own = dict(zip(keys, leaves, strict=True)) if isinstance(samples, dict) else None
    ordered = leaves if own is None else [own.get(key) for key in served.keys]
    if len(ordered) != len(served.inputs) or any(leaf is None for leaf in ordered):
        raise ConfigError(
            f"samples do not fit the model's inputs ({', '.join(served.inputs)}): give one array for each"
        )
    arrays = {
        name: np.asarray(leaf) if spec.dtype == tf.string else np.asarray(leaf, spec.dtype.as_numpy_dtype)
        for (name, spec), leaf in zip(served.inputs.items(), ordered, strict=True)
    }
    if len({len(array) for array in arrays.values()} - {0}) != 1:
        raise ConfigError("samples have no rows, or not as many for each input")
    for name, array in arrays.items():
        if not served.inputs[name].shape[1:].is_compatible_with(array.shape[1:]):
            raise ConfigError(f"samples of {name} have shape {array.shape[1:]}, not {served.inputs[name].shape[1:]}")
    return arrays


def _about(name: str, tensor: Any) -> dict[str, Any]:
    shape = None if tensor.shape.rank is None else tensor.shape.as_list()
    return {"name": name, "dtype": tensor.dtype.name, "shape": shape}


def _input_structure(model: KerasModel, samples: Any) -> Any:
    """The model's symbolic inputs as it takes them, else the samples as arrays."""
    structure = getattr(model, "_inputs_struct", None)
    if structure is None:
        inputs = getattr(model, "inputs", None)
        structure = inputs[0] if inputs and len(inputs) == 1 else inputs
    if structure is not None:
        return structure
    if samples is None:
        raise ConfigError(
            f"the inputs of {model.name!r} are not known: give samples=, some rows of what it takes, or build it from "
            "keras.Input"
        )
    return keras.tree.map_structure(np.asarray, samples)


def _flat(structure: Any, what: str) -> tuple[list[Any], list[Any], Callable[[Sequence[Any]], Any]]:
    """A tensor, or one list, tuple or dict of them: their keys or None, they themselves, and the way back."""
    keys, leaves, pack = _parts(structure)
    if any(isinstance(leaf, (list, tuple, dict)) for leaf in leaves):
        raise ConfigError(f"the model's {what} are nested: use a tensor, or one list or dict of tensors")
    if not all(key is None or isinstance(key, str) for key in keys):
        raise ConfigError(f"the model's {what} are named by something else than text: use a dict with text as keys")
    return keys, leaves, pack


def _parts(structure: Any) -> tuple[list[Any], list[Any], Callable[[Sequence[Any]], Any]]:
    if isinstance(structure, dict):
        return list(structure), list(structure.values()), lambda values: dict(zip(structure, values, strict=True))
    if isinstance(structure, (list, tuple)):
        return [None] * len(structure), list(structure), type(structure)
    return [None], [structure], lambda values: values[0]


def _names(keys: Sequence[str | None], own: Sequence[str | None], kind: str) -> list[str]:
    """Returns a name for each: the key, else the user's own name if it is unique, else one by the place."""
    if keys and keys[0] is not None:
        names = [_plain(str(key), kind) for key in keys]
    else:
        by_place = [kind] if len(keys) == 1 else [f"{kind}_{place + 1}" for place in range(len(keys))]
        given = [None if name is None else _plain(name, kind) for name in own]
        names = [
            place if name is None or given.count(name) > 1 else name
            for name, place in zip(given, by_place, strict=True)
        ]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two {kind}s of the model would be named {name!r}: rename one")
    return names


def _plain(name: str, kind: str) -> str:
    """Returns the name in a form that TensorFlow takes without renaming or refusing it."""
    plain = re.sub(r"[^0-9A-Za-z_]", "_", name)
    if not plain[:1].isalpha():
        plain = f"{kind}_{plain.lstrip('_')}"
    return f"{plain}_" if keyword.iskeyword(plain) or plain == "self" else plain


def _dtype(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "OSU":
        return tf.string
    return tf.as_dtype(leaf.dtype)


def _own_input_name(leaf: Any) -> str | None:
    name = getattr(leaf, "name", None)
    return None if name is None or _GENERATED_INPUT.fullmatch(name) else name


def _own_output_names(model: KerasModel, count: int) -> list[str | None]:
    """The names of the layers that the outputs come from, where the user chose them."""
    functional = getattr(model, "_functional", None) or model  # a Sequential model holds one
    tensors = getattr(functional, "outputs", None) or []
    if len(tensors) != count:
        return [None] * count
    layers = [tensor._keras_history.operation for tensor in tensors]
    return [None if _is_generated(layer) else layer.name for layer in layers]


def _is_generated(layer: Layer) -> bool:
    kind = keras.src.utils.naming.to_snake_case(type(layer).__name__)
    return re.fullmatch(rf"{kind}(_\d+)?", layer.name) is not None


def _batch_size(leaves: Sequence[Any], wanted: int | None) -> int | None:
    """Returns the rows that were asked for, else those of the model's own inputs."""
    check_counts(numpy=True, optional=True, batch_size=wanted)
    own = {leaf.shape[0] for leaf in leaves if not isinstance(leaf, np.ndarray)} - {None}
    if len(own) > 1 or (wanted is not None and own - {wanted}):
        raise ConfigError(f"batch_size={wanted}, but the model's inputs are made for {sorted(own)} rows: leave it out")
    return next(iter(own), wanted)
