"""Keras callbacks see, and do, the same in `tfmb.evaluate` and `tfmb.predict` as in Keras's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from spies import spy

import tfmb
from tfmb.backend import keras
from tfmb.errors import ConfigError

X = np.random.default_rng(0).normal(size=(23, 3)).astype("float32")
Y = X.sum(1, keepdims=True)
PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]] = {
    "evaluate": (tfmb.evaluate, keras.Model.evaluate, (X, Y)),
    "predict": (tfmb.predict, keras.Model.predict, (X,)),
}
both = pytest.mark.parametrize("what", PAIRS)


def build() -> Any:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


@both
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("verbose", [0, 2])
def test_every_hook_is_called_as_by_keras(what: str, replicas: int, verbose: int) -> None:
    ours, theirs, data = PAIRS[what]
    model, spies = build(), (spy(), spy())
    ours(model, *data, batch_size=7, verbose=verbose, callbacks=[spies[0]], devices=replicas)
    theirs(model, *data, batch_size=7, verbose=verbose, callbacks=[spies[1]])
    assert len(spies[1].calls) == 2 + 2 * 4
    assert spies[0].calls == spies[1].calls
    assert spies[0].params == spies[1].params
    for found, expected in zip(spies[0].logs, spies[1].logs, strict=True):
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6, err_msg=key)


class _StopAfterTwo(keras.callbacks.Callback):
    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_evaluating = batch == 1

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_predicting = batch == 1


@both
def test_callback_may_stop_it(what: str) -> None:
    ours, theirs, data = PAIRS[what]
    model = build()
    given: dict[str, Any] = {"batch_size": 7, "verbose": 0, "callbacks": [_StopAfterTwo()]}
    np.testing.assert_allclose(ours(model, *data, **given), theirs(model, *data, **given), rtol=1e-5, atol=1e-6)
    assert len(tfmb.predict(model, X, **given)) == 14


@pytest.mark.filterwarnings("ignore:_StopAfterTwo must see every batch")
def test_callback_may_stop_the_validation_of_a_training() -> None:
    given: dict[str, Any] = {"validation_data": (X, Y), "validation_batch_size": 7, "shuffle": False, "verbose": 0}
    model, weights = build(), build().get_weights()
    found = []
    for fit in (tfmb.fit, keras.Model.fit):
        model.set_weights(weights)
        history = fit(model, X, Y, callbacks=[_StopAfterTwo()], **given)
        found.append(history.history["val_loss"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


class _Double(keras.callbacks.Callback):
    def on_predict_begin(self, logs: Any = None) -> None:
        self.model.set_weights([2 * weight for weight in self.model.get_weights()])

    on_test_begin = on_predict_begin


@both
@pytest.mark.parametrize("replicas", [1, 2])
def test_weights_that_a_callback_swaps_are_used(what: str, replicas: int) -> None:
    ours, theirs, data = PAIRS[what]
    model = build()
    weights = model.get_weights()
    found = ours(model, *data, verbose=0, callbacks=[_Double()], devices=replicas)
    model.set_weights(weights)
    np.testing.assert_allclose(found, theirs(model, *data, verbose=0, callbacks=[_Double()]), rtol=1e-5, atol=1e-6)


@both
def test_a_list_of_keras_is_used_as_it_is(what: str) -> None:
    ours, _, data = PAIRS[what]
    model, seen = build(), spy()
    ours(model, *data, verbose=0, callbacks=keras.callbacks.CallbackList([seen], model=model))
    assert len(seen.calls) == 4


@both
def test_what_is_no_callback_is_refused(what: str) -> None:
    ours, _, data = PAIRS[what]
    with pytest.raises(ConfigError, match=r"no keras\.callbacks\.Callback"):
        ours(build(), *data, callbacks=[print])
