"""A model's own `fit`, `evaluate` and `predict` are called, and find ours in `super()`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras
from tfmb.errors import ConfigError

layers = keras.layers
_random = np.random.default_rng(0)
X, Y = _random.integers(0, 256, (24, 8)).astype("float32"), _random.integers(0, 3, 24)
KERASS = {name: getattr(keras.Model, name) for name in ("fit", "evaluate", "predict")}


class Scaled(keras.Model):
    """Scales its inputs before Keras sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def fit(self, data: Any, targets: Any = None, **given: Any) -> Any:
        return super().fit(data / 255.0, targets, **given)

    def evaluate(self, data: Any, targets: Any = None, **given: Any) -> Any:
        return super().evaluate(data / 255.0, targets, **given)

    def predict(self, data: Any, **given: Any) -> Any:
        return super().predict(data / 255.0, **given)


def built(kind: Any = Scaled) -> Any:
    keras.utils.set_random_seed(0)
    model = kind()
    model(X)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return model


def test_they_do_what_they_do_in_keras() -> None:
    theirs, ours = built(), built()
    given: dict[str, Any] = {"epochs": 2, "shuffle": False, "verbose": 0}
    right, found = theirs.fit(X, Y, **given), tfmb.fit(ours, X, Y, **given)
    for key, values in right.history.items():
        np.testing.assert_allclose(found.history[key], values, rtol=1e-5)
    np.testing.assert_allclose(tfmb.evaluate(ours, X, Y, verbose=0), theirs.evaluate(X, Y, verbose=0), rtol=1e-5)
    np.testing.assert_allclose(tfmb.predict(ours, X), theirs.predict(X, verbose=0), rtol=1e-4, atol=1e-6)


def test_our_arguments_reach_our_fit(tmp_path: Path) -> None:
    tfmb.fit(built(), X, Y, virtual_replicas=2, seed=3, run_dir=tmp_path / "run", verbose=0, batch_size=8)
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert (config["virtual_replicas"], config["seed"], config["batch_size"]) == (2, 3, 8)


class Refuses(Scaled):
    def fit(self, *data: Any, **given: Any) -> Any:
        raise ValueError("mine")


def test_keras_has_its_methods_again_whatever_is_raised() -> None:
    with pytest.raises(ValueError, match="mine"):
        tfmb.fit(built(Refuses), X, Y)
    with pytest.raises(ConfigError, match="epochs=0"):
        tfmb.fit(built(), X, Y, epochs=0)
    assert {name: getattr(keras.Model, name) for name in KERASS} == KERASS


histories: list[Any] = []


class FitsAnother(Scaled):
    """Has another model trained on the way, which is not ours to train."""

    def fit(self, *data: Any, **given: Any) -> Any:
        other = keras.Sequential([layers.Dense(3)])
        other.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        histories.append(other.fit(data[0], data[1], verbose=0))
        return super().fit(*data, **given)


def test_other_models_keep_kerass_fit() -> None:
    tfmb.fit(built(FitsAnother), X, Y, verbose=0)
    (history,) = histories
    assert isinstance(history, keras.callbacks.History)
    assert type(history.model.optimizer).__module__.startswith("keras.")
