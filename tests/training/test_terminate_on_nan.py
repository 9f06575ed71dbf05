"""With `keras.callbacks.TerminateOnNaN` a loss that is not finite is that callback's affair, as in `fit`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import here
from spies import spy

import tfmb
from tfmb.backend import keras, tf

pytestmark = pytest.mark.filterwarnings("ignore:.*must see every batch")
layers, TerminateOnNaN = keras.layers, keras.callbacks.TerminateOnNaN
X = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
Y = X[:, :1] * 2.0
BAD = 7.0  # a target for which the loss is NaN
BAD_Y = np.where(np.arange(24)[:, None] == 13, BAD, Y)  # in the fourth batch of 4


class OwnStep(keras.Sequential):
    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


def loss(y: Any, y_pred: Any) -> Any:
    """Squared error, and NaN for bad targets."""
    return tf.where(y[:, 0] == BAD, np.nan, tf.reduce_mean(tf.square(y - y_pred), -1))


def build(kind: Any = keras.Sequential, **compiled: Any) -> Any:
    model = kind([keras.Input((3,)), layers.Dense(1, kernel_initializer="ones")])
    model.compile(**{"optimizer": keras.optimizers.Adam(0.1), "loss": loss, "metrics": ["mae"], **compiled})
    return model


def both(make: Callable[[], Any], callback: Callable[[], Any] = TerminateOnNaN, **given: Any) -> list[Any]:
    """(model, History or error, calls of hooks) of Keras's `fit` and of ours."""
    found = []
    ours: dict[str, Any] = {name: given.pop(name) for name in ("virtual_replicas", "jit_compile") if name in given}
    for fit, more in ((keras.Model.fit, dict[str, Any]()), (tfmb.fit, ours)):
        model, watcher = make(), spy()
        usual = {"batch_size": 4, "epochs": 3, "shuffle": False, "verbose": 0, "callbacks": [watcher, callback()]}
        arguments: dict[str, Any] = {"x": X, "y": BAD_Y, "validation_data": (X[:5], Y[:5]), **usual, **given, **more}
        try:
            result = fit(model, arguments.pop("x"), arguments.pop("y"), **arguments)
        except RuntimeError as error:
            result = str(error)
        found.append((model, result, watcher.calls))
    return found


def assert_same(found: list[Any]) -> None:
    (theirs, right, calls), (ours, history, our_calls) = found
    assert our_calls == calls
    assert ours.stop_training == theirs.stop_training
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    assert int(ours.optimizer.iterations.numpy()) == int(theirs.optimizer.iterations.numpy())
    if isinstance(right, str):
        assert history == right
        return
    assert history.epoch == right.epoch == [0]
    assert sorted(history.history) == sorted(right.history)
    for name, values in right.history.items():
        np.testing.assert_allclose(history.history[name], values, rtol=0, atol=1e-5, err_msg=name)


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "a whole batch": (build, {}),
    "a batch that is cut": (build, {"virtual_replicas": 2}),
    "a step of its own": (lambda: build(OwnStep), {}),
    "some steps an execution": (lambda: build(steps_per_execution=3), {}),
    "a dataset": (build, {"x": tf.data.Dataset.from_tensor_slices((X, BAD_Y)).batch(4), "y": None, "batch_size": None}),
}


@pytest.mark.parametrize("case", here(CASES, ["a whole batch", "some steps an execution"], "compile"))
def test_training_goes_on_until_the_callback_ends_it(case: str) -> None:
    make, given = CASES[case]
    found = both(make, **given)
    assert np.isnan(found[0][1].history["loss"]).all()
    assert_same(found)


@pytest.mark.compile
def test_it_does_where_xla_compiles_the_step() -> None:
    assert_same(both(build, jit_compile="step"))


def test_it_does_where_a_loss_scale_leaves_such_updates_out() -> None:
    assert_same(both(lambda: build(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1)))))


def test_its_error_is_the_trainings_end() -> None:
    found = both(build, lambda: TerminateOnNaN(raise_error=True))
    assert "NaN or Inf loss encountered" in found[0][1]
    assert "on_train_end" not in str(found[0][2])
    assert_same(found)


@pytest.mark.parametrize("where", here(["x", "y", "validation_data"], ["x"], "compile"))
def test_arrays_that_are_not_finite_are_trained_on(where: str) -> None:
    x, y = X.copy(), Y.copy()
    if where == "validation_data":
        assert_same(both(build, y=Y, epochs=1, validation_data=(X[:4], np.full((4, 1), np.inf, "float32"))))
        return
    (x if where == "x" else y)[9] = np.inf
    assert_same(both(build, x=x, y=y))


def test_a_run_of_it_is_finished_and_recalled(tmp_path: Path) -> None:
    def fit() -> Any:
        model = build()
        callbacks = [TerminateOnNaN()]
        given: dict[str, Any] = {"shuffle": False, "verbose": 0, "seed": 0, "callbacks": callbacks, "resume": True}
        return tfmb.fit(model, X, BAD_Y, 4, 3, run_dir=tmp_path / "run", **given), model

    (history, model), (recalled, again) = fit(), fit()
    assert np.isnan(history.history["loss"]).all()
    for name, values in history.history.items():
        np.testing.assert_array_equal(recalled.history[name], values)
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_on_divergence_asks_for_comes_first() -> None:
    history = tfmb.fit(
        build(), X, BAD_Y, 4, 2, verbose=0, callbacks=[TerminateOnNaN()], on_divergence="skip", shuffle=False
    )
    assert np.isfinite(history.history["loss"]).all()
    assert history.epoch == [0, 1]
