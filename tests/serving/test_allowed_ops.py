"""SavedModels that would do more than compute are refused before they are loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfmb.backend import keras, tf
from tfmb.errors import DataError
from tfmb.serving.allowed_ops import check_operations

pytestmark = pytest.mark.usefixtures("fresh_keras")


def saved(folder: Path, function: Callable[[Any], Any]) -> Path:
    module = tf.Module()
    module.weight = tf.Variable(1.0)
    module.function = tf.function(function, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.function})
    return folder


def writes(x: Any) -> Any:
    tf.io.write_file("/tmp/tfmb-never", "x")
    return x


def prints(x: Any) -> Any:
    tf.print(x)
    return x


def saves(x: Any) -> Any:
    tf.raw_ops.SaveV2(prefix="/tmp/tfmb-never", tensor_names=["x"], shape_and_slices=[""], tensors=[x])
    return x


def restores(x: Any) -> Any:
    return x + tf.raw_ops.RestoreV2(prefix="x", tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32])[0]


def in_a_branch(x: Any) -> Any:
    return tf.cond(x > 0, lambda: writes(x), lambda: x)


def in_a_loop(x: Any) -> Any:
    return tf.while_loop(lambda i: i < 3.0, lambda i: [writes(i) + 1.0], [x])[0]


HOSTILE: dict[str, Callable[[Any], Any]] = {
    "WriteFile": writes,
    "ReadFile": lambda x: x + tf.strings.to_number(tf.io.read_file("/etc/passwd")),
    "MatchingFiles": lambda x: x + tf.cast(tf.size(tf.io.matching_files("/*")), tf.float32),
    "PrintV2": prints,
    "EagerPyFunc": lambda x: tf.py_function(lambda y: y, [x], tf.float32),
    "PyFunc": lambda x: tf.numpy_function(lambda y: y, [x], tf.float32),
    "SaveV2": saves,
    "RestoreV2": restores,
    "WriteFile in a branch": in_a_branch,
    "WriteFile in a loop": in_a_loop,
    "TensorSliceDataset": lambda x: tf.data.Dataset.from_tensors(x).reduce(0.0, lambda a, b: a + b),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(case: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, HOSTILE[case])
    name = "TensorDataset" if "Dataset" in case else case.split()[0]
    with pytest.raises(DataError, match=f"operation '({name}|.*Dataset)' may do more than compute"):
        check_operations(folder)


@pytest.mark.compile
def test_models_of_many_kinds_pass(tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((8, 8, 3))
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="gelu")(x))
    y = layers.SeparableConv2D(4, 3, padding="same")(layers.RandomFlip()(y))
    y = layers.Reshape((-1, 4))(layers.UpSampling2D()(y))
    y = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(y, y))
    y = layers.GRU(4)(
        layers.LSTM(4, return_sequences=True)(layers.Bidirectional(layers.SimpleRNN(2, return_sequences=True))(y))
    )
    y = layers.Dropout(0.5)(layers.Dense(4, activation="softmax")(y))
    model = keras.Model(x, y)
    for training in (False, True):
        function = tf.function(
            lambda images, training=training: {"y": model(images, training=training)}, autograph=False
        ).get_concrete_function(tf.TensorSpec([None, 8, 8, 3], name="images"))
        folder = tmp_path / str(training)
        state = tf.Module()
        state.weights = [v.value for v in model.variables]
        tf.saved_model.save(state, str(folder), signatures={"serving_default": function})
        check_operations(folder)


def test_other_forms_and_damage_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", lambda x: x + 1.0)
    check_operations(folder)
    for name in ("saved_model.cpb", "saved_model.pbtxt"):
        (folder / name).write_bytes(b"")
        with pytest.raises(DataError, match=f"holds {name}, which tfmb does not read"):
            check_operations(folder)
        (folder / name).unlink()
    (folder / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be loaded"):
        check_operations(folder)
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(DataError, match="no SavedModel of TensorFlow 2"):
        check_operations(folder)
