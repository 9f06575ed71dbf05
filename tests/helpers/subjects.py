"""Small models of the kinds that users have, and their data, as `--model` and `--dataset` name them."""

from typing import Any

import numpy as np

import tfmb
from tfmb.backend import keras

ROWS = 60
layers = keras.layers


def _columns(seed: int = 3) -> tuple[dict[str, Any], np.ndarray]:
    random = np.random.default_rng(seed)
    x = {
        "age": random.normal(size=(ROWS, 1)).astype("float32"),
        "town": random.integers(0, 5, (ROWS, 1)).astype("int32"),
    }
    return x, (x["age"][:, 0] + x["town"][:, 0] > 2).astype("int64")


def tabular_data() -> Any:
    return _columns()


def tabular() -> Any:
    """Columns by name, an embedding, dropout of ours and a decay."""
    inputs = {"age": keras.Input((1,), name="age"), "town": keras.Input((1,), dtype="int32", name="town")}
    town = layers.Flatten()(layers.Embedding(5, 3)(inputs["town"]))
    hidden = layers.Dense(8, "tanh")(layers.Concatenate()([inputs["age"], town]))
    model = keras.Model(inputs, layers.Dense(2)(tfmb.layers.Dropout(0.2)(hidden)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(0.01), loss, metrics=["accuracy"])
    return model


def two_inputs_data() -> Any:
    random = np.random.default_rng(4)
    x = [random.normal(size=(ROWS, size)).astype("float32") for size in (3, 2)]
    return x, (x[0].sum(1, keepdims=True) * x[1].sum(1, keepdims=True)).astype("float32")


def two_inputs() -> Any:
    """Two inputs in a list, Keras's own dropout, momentum with clipping."""
    inputs = [keras.Input((3,), name="a"), keras.Input((2,), name="b")]
    hidden = layers.Dense(7, "relu")(layers.Concatenate()(inputs))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dropout(0.2)(hidden)))
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=0.5), "mse")
    return model


def two_outputs_data() -> Any:
    x, kind = _columns(5)
    return x["age"], {"kind": kind, "size": x["age"] ** 2}


def two_outputs() -> Any:
    """Outputs in a dict, each with a loss of its own and a weight; RMSprop on a schedule of Keras's."""
    inputs = keras.Input((1,), name="age")
    hidden = layers.Dense(6, "tanh", kernel_regularizer=keras.regularizers.L2(0.01))(inputs)
    outputs = {"kind": layers.Dense(2, name="kind")(hidden), "size": layers.Dense(1, name="size")(hidden)}
    model = keras.Model(inputs, outputs)
    losses = {"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"}
    model.compile(keras.optimizers.RMSprop(0.003), losses, loss_weights={"kind": 1.0, "size": 0.5})
    return model


def only_32_bits() -> Any:
    """A model that 64 bits cannot train: its first layer is made in 32."""

    class Narrow(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * np.float32(2.0) if x.dtype == "float32" else _refuse(x.dtype)

    inputs = [keras.Input((3,), name="a"), keras.Input((2,), name="b")]
    hidden = layers.Dense(7, "tanh")(Narrow()(layers.Concatenate()(inputs)))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def _refuse(dtype: str) -> Any:
    raise TypeError(f"no {dtype} here")


def train_options(name: str) -> list[str]:
    """The command line of a short run of a model."""
    if name in ("cnn", "mlp", "resnet"):
        options = ["--dataset", "digits", "--model", name, "--batch-size", "256", "--epochs", "1"]
    else:
        options = [*own(name), "--batch-size", "16", "--epochs", "2"]
    return ["train", *options, "--seed", "3"]


def own(name: str) -> list[str]:
    """How a user names a model and data of their own, in this file."""
    data = "two_inputs" if name == "only_32_bits" else name
    return ["--model", f"subjects:{name}", "--dataset", f"subjects:{data}_data"]


NAMES = ("cnn", "mlp", "resnet", "tabular", "two_inputs", "two_outputs")
