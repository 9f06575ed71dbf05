"""Made-up examples are such that the model and its losses take them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.verification.made_up import made_up_examples

pytestmark = pytest.mark.usefixtures("fresh_keras")
ROWS = 5


def classifier(loss: Any, units: int = 3, activation: str = "softmax") -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation)])
    model.compile("sgd", loss)
    return model


def two_outputs(losses: Any) -> Any:
    words = keras.Input((None,), dtype="int32", name="words")
    image = keras.Input((6, 6, 1), name="image")
    joined = keras.layers.Concatenate()(
        [keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(10, 4)(words)), keras.layers.Flatten()(image)]
    )
    outputs = {"a": keras.layers.Dense(1, "sigmoid", name="a")(joined), "b": keras.layers.Dense(3, name="b")(joined)}
    model = keras.Model({"words": words, "image": image}, outputs)
    model.compile("sgd", losses)
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "classes": lambda: classifier("sparse_categorical_crossentropy"),
    "one of several": lambda: classifier(keras.losses.CategoricalCrossentropy()),
    "0 or 1": lambda: classifier(keras.losses.BinaryCrossentropy(), 1, "sigmoid"),
    "hinge": lambda: classifier(keras.losses.hinge, 2, "tanh"),
    "numbers": lambda: classifier("mse", 2, "linear"),
    "a function": lambda: classifier(lambda y, p: keras.ops.mean((y - p) ** 2, -1), 2, "linear"),
    "two outputs": lambda: two_outputs({"a": "binary_crossentropy", "b": "mse"}),
    "one loss": lambda: two_outputs("mse"),
    "one without": lambda: two_outputs({"b": "mse"}),
}


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # of the output without a loss
@pytest.mark.parametrize("kind", MODELS)
def test_the_model_trains_on_them(kind: str) -> None:
    model = MODELS[kind]()
    x, y = made_up_examples(model, ROWS, "mine:build")
    assert all(len(array) == ROWS for array in keras.tree.flatten(x))
    assert np.all(np.isfinite(model.train_on_batch(x, y)))
    again, _ = made_up_examples(model, ROWS, "mine:build")
    assert all(np.array_equal(a, b) for a, b in zip(keras.tree.flatten(x), keras.tree.flatten(again), strict=True))


def test_what_cannot_be_made_up_is_refused() -> None:
    bare = keras.Sequential([keras.layers.Dense(1)])
    bare.compile("sgd", "mse")
    with pytest.raises(ConfigError, match="mine:build: the model does not say what it takes: give --dataset"):
        made_up_examples(bare, ROWS, "mine:build")
    texts = keras.Input((), dtype="string")
    counted = keras.layers.TextVectorization(vocabulary=["a"], output_mode="multi_hot")(texts)
    model = keras.Model(texts, keras.layers.Dense(1)(counted))
    model.compile("sgd", "mse")
    with pytest.raises(ConfigError, match="takes texts, which are not made up"):
        made_up_examples(model, ROWS, "mine:build")
