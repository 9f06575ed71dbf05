"""Names and shapes of signatures: the user's where there are some, else stable ones; the same in every process."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.serving.run_saved_model import sample_rows
from tfmb.serving.signatures import ServedModel, samples_by_name

pytestmark = pytest.mark.usefixtures("fresh_keras")


def sequential() -> Any:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def called_sequential() -> Any:
    model = keras.Sequential([keras.layers.Dense(2)])
    model(np.zeros((1, 3), np.float32))
    return model


def two_of_each() -> Any:
    a, b = keras.Input((3,)), keras.Input((2,))
    joined = keras.layers.Concatenate()([a, b])
    return keras.Model([a, b], [keras.layers.Dense(1)(joined), keras.layers.Dense(2)(joined)])


def partly_named() -> Any:
    a, b = keras.Input((3,), name="age"), keras.Input((2,))
    joined = keras.layers.Concatenate()([a, b])
    return keras.Model([a, b], [keras.layers.Dense(1, name="price")(joined), keras.layers.Dense(2)(joined)])


def by_keys() -> Any:
    a, b = keras.Input((3,), name="zone"), keras.Input((2,), name="age")
    joined = keras.layers.Concatenate()([a, b])
    outputs = {"risk": keras.layers.Dense(1, name="own")(joined), "price": keras.layers.Dense(2)(joined)}
    return keras.Model({"zone": a, "age": b}, outputs)


def nested_model() -> Any:
    pixels = keras.Input((4, 4, 1), dtype="uint8", name="images")
    return keras.Model(pixels, keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])(pixels * 1.0))


def operation_at_the_end() -> Any:
    x = keras.Input((3,))
    return keras.Model(x, keras.ops.exp(x) + 1.0)


def one_layer_twice() -> Any:
    x = keras.Input((3,))
    return keras.Model(x, [keras.layers.Dense(1, name="price")(x)] * 2)


NAMES: dict[Callable[[], Any], tuple[list[str], list[str]]] = {
    sequential: (["input"], ["output"]),
    called_sequential: (["input"], ["output"]),
    two_of_each: (["input_1", "input_2"], ["output_1", "output_2"]),
    partly_named: (["age", "input_2"], ["price", "output_2"]),
    by_keys: (["zone", "age"], ["risk", "price"]),
    nested_model: (["images"], ["output"]),
    operation_at_the_end: (["input"], ["output"]),
    one_layer_twice: (["input"], ["output_1", "output_2"]),
}


@pytest.mark.parametrize("build", NAMES)
def test_names_do_not_count_what_was_built_before(build: Callable[[], Any]) -> None:
    first = ServedModel(build(), False)
    for _ in range(2):  # Keras counts on
        sequential()
    second = ServedModel(build(), False)
    assert (list(first.inputs), first.outputs) == NAMES[build]
    assert first.describe() == second.describe()


@pytest.mark.parametrize("build", NAMES)
def test_rows_come_to_the_inputs_of_their_names(build: Callable[[], Any]) -> None:
    model = build()
    served = ServedModel(model, False)
    rows = sample_rows(served.inputs, 5)
    answer = served.signatures["serving_default"](**{name: tf.constant(value) for name, value in rows.items()})
    keys = list(model._inputs_struct) if isinstance(getattr(model, "_inputs_struct", None), dict) else None
    values = list(rows.values())
    expected = model(dict(zip(keys, values, strict=True)) if keys else values if len(values) > 1 else values[0])
    flat = (
        expected if isinstance(expected, dict) else dict(zip(served.outputs, keras.tree.flatten(expected), strict=True))
    )
    for name in served.outputs:
        np.testing.assert_array_equal(answer[name], flat[name])


def test_shapes_belong_to_the_keys_in_any_order() -> None:
    """Keras sorts a dict's tensors by their keys, and keeps the dict as it was."""
    shapes = {name: tuple(spec.shape) for name, spec in ServedModel(by_keys(), False).inputs.items()}
    assert shapes == {"zone": (None, 3), "age": (None, 2)}


@pytest.mark.filterwarnings("ignore:When providing `inputs`")
@pytest.mark.parametrize(
    ("name", "plain"),
    [("a b", "a_b"), ("x/y", "x_y"), ("1st", "input_1st"), ("class", "class_"), ("größe", "gr__e"), ("_x", "input_x")],
)
def test_names_that_tensorflow_would_change_or_refuse(name: str, plain: str, tmp_path: Any) -> None:
    x = keras.Input((3,))
    served = ServedModel(keras.Model({name: x}, {"self": keras.layers.Dense(1)(x)}), False)
    assert (list(served.inputs), served.outputs) == ([plain], ["self_"])
    tf.saved_model.save(served.state, str(tmp_path), signatures=served.signatures)
    loaded = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    assert list(loaded.structured_input_signature[1]) == [plain]
    assert list(loaded.structured_outputs) == ["self_"]


def test_a_fixed_batch() -> None:
    served = ServedModel(nested_model(), False, 7)
    about = served.describe()
    assert about["serving_default"]["inputs"] == [{"name": "images", "dtype": "uint8", "shape": [7, 4, 4, 1]}]
    assert about["serve_bytes"]["inputs"] == [{"name": "image_bytes", "dtype": "string", "shape": [7]}]
    assert about["serving_default"]["outputs"] == [{"name": "output", "dtype": "float32", "shape": [7, 2]}]
    assert sample_rows(served.inputs, 3)["images"].shape == (7, 4, 4, 1)


def test_the_models_own_batch_size_is_kept() -> None:
    x = keras.Input((3,), batch_size=4)
    model = keras.Model(x, keras.layers.Dense(1)(x))
    assert tuple(ServedModel(model, False).inputs["input"].shape) == (4, 3)
    with pytest.raises(ConfigError, match=r"batch_size=5, but the model's inputs are made for \[4\] rows"):
        ServedModel(model, False, 5)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return {"sum": self.dense(inputs["b"]) + inputs["a"]}


def test_a_subclassed_model_needs_samples() -> None:
    model, rows = Subclassed(), {"b": np.ones((4, 3), np.float32), "a": np.ones((4, 2), np.float32)}
    expected = model(rows)
    with pytest.raises(ConfigError, match="give samples="):
        ServedModel(model, False)
    served = ServedModel(model, False, samples=rows)
    assert {name: tuple(spec.shape) for name, spec in served.inputs.items()} == {"b": (None, 3), "a": (None, 2)}
    np.testing.assert_array_equal(served.signatures["serving_default"](**rows)["sum"], expected["sum"])


def test_samples_by_name() -> None:
    served = ServedModel(by_keys(), False)
    rows = {"age": np.ones((4, 2)), "zone": np.zeros((4, 3))}
    found = samples_by_name(served, rows)
    assert list(found) == ["zone", "age"]
    assert all(found[name].dtype == np.float32 and np.array_equal(found[name], rows[name]) for name in rows)
    for bad, words in (
        ({"age": rows["age"]}, "do not fit"),
        ({"age": rows["zone"], "zone": rows["zone"]}, "have shape"),
        ({"age": rows["age"][:2], "zone": rows["zone"]}, "not as many"),
    ):
        with pytest.raises(ConfigError, match=words):
            samples_by_name(served, bad)


@pytest.mark.filterwarnings("ignore:When providing `inputs`")
def test_refusals() -> None:
    x = keras.Input((3,))
    nested = keras.Model(x, {"a": [keras.layers.Dense(1)(x)]})
    other = keras.Input((3,))
    alike = keras.Model({"a b": x, "a_b": other}, keras.layers.Dense(1)(keras.layers.add([x, other])))
    for model, arguments, words in (
        (nested, (False,), "outputs are nested"),
        (alike, (False,), "two inputs of the model would be named 'a_b'"),
        (two_of_each(), (True,), "one output"),
        (sequential(), (False, 0), "batch_size=0 must be an integer of at least 1"),
        (sequential(), (False, True), "batch_size=True must be"),
    ):
        with pytest.raises(ConfigError, match=words):
            ServedModel(model, *arguments)
