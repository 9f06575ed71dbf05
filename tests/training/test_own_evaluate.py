"""A model's own `evaluate` scores the validation data of a training, as in Keras."""

from typing import Any, ClassVar

import numpy as np
import pytest
from cases import here
from same_as_fit import Fit, assert_same
from spies import spy

import tfmb
from tfmb.backend import keras, tf

pytestmark = [
    pytest.mark.compile,
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:.*must see every batch", "ignore:.*ran out"),
]
X = np.random.default_rng(0).normal(size=(20, 3))
Y = X[:, :1] * 2.0


class Asked(keras.Sequential):
    """Keeps how it was called."""

    asked: ClassVar[list[Any]] = []

    def evaluate(self, *arguments: Any, **given: Any) -> Any:
        kinds = {name: type(value).__name__ for name, value in given.items() if name != "callbacks"}
        self.asked.append((len(arguments), kinds, "callbacks" in given))
        return super().evaluate(*arguments, **given)


class More(keras.Sequential):
    """Adds to what Keras returns; the data it hands on is gone past, as in Keras: that of the training is kept."""

    def evaluate(self, x: Any = None, y: Any = None, **given: Any) -> Any:
        logs = super().evaluate(x * 100.0, y, **given)
        return {**logs, "twice": 2.0 * logs["loss"]} if given.get("return_dict") else logs


class Anew(keras.Sequential):
    """Scores other data, without what Keras keeps."""

    def evaluate(self, x: Any = None, y: Any = None, **given: Any) -> Any:
        del given["_use_cached_eval_dataset"]
        return super().evaluate(x[:5] * 2.0, y[:5], **given)


class Made(keras.Sequential):
    """Scores by itself."""

    def evaluate(self, x: Any = None, y: Any = None, **given: Any) -> Any:
        return {"score": float(np.mean(x)), "weight": float(np.sum(self.get_weights()[0]))}


KINDS = {kind.__name__: kind for kind in (Asked, More, Anew, Made)}


def build(kind: Any) -> Any:
    model = kind([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("data", here(["arrays", "split", "dataset"], ["arrays"], "compile"))
def test_it_scores_the_validation_data(name: str, data: str) -> None:
    calls = []

    def program(fit: Fit) -> Any:
        model, callback = build(KINDS[name]), spy()
        kinds: dict[str, dict[str, Any]] = {
            "arrays": {"validation_data": (X, Y), "validation_batch_size": 8},
            "split": {"validation_split": 0.5},
            "dataset": {"validation_data": tf.data.Dataset.from_tensor_slices((X, Y)).batch(4), "validation_steps": 2},
        }
        given = kinds[data]
        if data == "dataset" and name != "Asked":
            given["validation_data"] = (X, Y)
        Asked.asked = []
        histories = [fit(model, X, Y, epochs=3, validation_freq=[1, 3], callbacks=[callback], **given)]
        calls.append((callback.calls, Asked.asked))
        return model, histories

    assert_same(program)
    assert calls[1] == calls[0]


def test_it_scores_a_copy_on_several_devices() -> None:
    model = build(More)
    history = tfmb.fit(model, X, Y, batch_size=10, epochs=2, verbose=0, devices=2, validation_data=(X, Y)).history
    np.testing.assert_allclose(history["val_twice"], 2.0 * np.array(history["val_loss"]))
    expected = keras.Model.evaluate(model, X, Y, verbose=0)
    np.testing.assert_allclose([history["val_loss"][-1], history["val_mae"][-1]], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", [Anew, Made])
def test_it_sees_the_weights_that_are_trained_on_several_devices(kind: Any) -> None:
    """It may look at the model itself, of which a copy is trained."""
    found = []
    for replicas in (1, 2):
        keras.utils.set_random_seed(0)
        given: dict[str, Any] = {
            "batch_size": 10,
            "epochs": 2,
            "verbose": 0,
            "shuffle": False,
            "validation_data": (X, Y),
        }
        found.append(tfmb.fit(build(kind), X, Y, devices=replicas, **given).history)
    for key, values in found[0].items():
        np.testing.assert_allclose(found[1][key], values, rtol=1e-6, err_msg=key)
