"""A run goes on at the rate that it was saved with, or at one that was asked for anew, whoever's rate it is."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import here

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError, PreemptedError
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.training.session import StopSignals

layers, optimizers = keras.layers, keras.optimizers
_random = np.random.default_rng(0)
X, Y = _random.normal(size=(24, 4)).astype("float32"), _random.normal(size=(24, 1)).astype("float32")


class ByHand(keras.Model):
    """Its own step, without an optimizer."""

    def train_step(self, data: Any) -> Any:
        loss, gradients = self.gradients_of(data, lambda loss: loss)
        for gradient, variable in zip(gradients, self.trainable_variables, strict=True):
            variable.assign_sub(0.1 * gradient)
        return {"loss": loss}

    def gradients_of(self, data: Any, scale: Callable[[Any], Any]) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            loss = self.compute_loss(data[0], data[1], self(data[0], training=True))
            scaled = scale(loss)
        return loss, tape.gradient(scaled, self.trainable_variables)


class One(ByHand):
    """Its own step, with the compiled optimizer."""

    def train_step(self, data: Any) -> Any:
        loss, gradients = self.gradients_of(data, self.optimizer.scale_loss)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


class Two(ByHand):
    """Its own step, with another optimizer for the last layer."""

    def train_step(self, data: Any) -> Any:
        loss, gradients = self.gradients_of(data, lambda loss: loss)
        self.optimizer.apply(gradients[:2], self.trainable_variables[:2])
        self.second.apply(gradients[2:], self.trainable_variables[2:])
        return {"loss": loss}


def quarter() -> float:
    return 0.25


def build(kind: Any, optimizer: Any, second: Any = None) -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = kind(inputs, layers.Dense(1, dtype="float32")(layers.Dense(5, "tanh")(inputs)))
    model.compile(optimizer, "mse")
    if kind is ByHand:
        model.optimizer = None
    if second is not None:
        model.second = second
    return model


def foreign(rate: Any) -> Any:
    return build(keras.Model, optimizers.Nadam(rate))


def accumulating(rate: Any) -> Any:
    return build(keras.Model, optimizers.Adam(rate, gradient_accumulation_steps=2))


def counterpart(rate: Any) -> Any:
    return build(keras.Model, optimizers.Adam(rate))


def own(rate: Any) -> Any:
    return build(One, optimizers.Adam(rate))


def own_float16(rate: Any) -> Any:
    with_scale = optimizers.LossScaleOptimizer(optimizers.SGD(rate, momentum=0.5), initial_scale=8.0)
    return build(One, with_scale)


def own_second(rate: Any) -> Any:
    return build(Two, optimizers.SGD(0.01), optimizers.Adam(rate))


def by_hand(rate: Any) -> Any:
    del rate
    return build(ByHand, "sgd")


def fit(model: Any, **given: Any) -> Any:
    """Trains two epochs of three batches."""
    arguments = {"batch_size": 8, "epochs": 2, "seed": 0, "verbose": 0, "jit_compile": False, "checkpoint_every": 2}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*goes on, but not exactly")
        tfmb.fit(model, X, Y, **{**arguments, **given})
    return model


@pytest.fixture
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Trains a model until it is stopped in the second epoch; returns the run."""

    def stopped(model: Any, **given: Any) -> Path:
        asked = iter([None, None, None, "SIGTERM"])
        with monkeypatch.context() as patch:
            patch.setattr(StopSignals, "reason", lambda self: next(asked, None))
            with pytest.raises(PreemptedError):
                fit(model, run_dir=tmp_path / "run", **given)
        return tmp_path / "run"

    return stopped


def rates(model: Any) -> list[float]:
    """Of the optimizers of a model, where its step ends."""
    held = [model.optimizer, *([model.second] if hasattr(model, "second") else [])]
    return [float(str(np.asarray(optimizer.learning_rate))) for optimizer in held]


KINDS = [foreign, accumulating, counterpart, own, own_float16, own_second]


@pytest.mark.parametrize("kind", here(KINDS, [foreign], "compile"), ids=lambda kind: kind.__name__)
def test_a_rate_that_is_asked_for_anew(kind: Any, cut: Callable[..., Path]) -> None:
    run = cut(kind(0.25))
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.25 and is 0\.125"):
        fit(kind(0.125), run_dir=run, resume=True)
    model = fit(kind(0.125), run_dir=run, resume=True, allow_mismatch=True)
    assert rates(model) == [*rates(kind(0.5))[:-1], 0.125]


class Rises(keras.callbacks.Callback):
    """Sets the rate and the weights anew from what they are, each time that it is called."""

    calls = 0

    def on_train_begin(self, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = 0.25

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.calls += 1
        self.odd = not getattr(self, "odd", False)
        self.model.optimizer.learning_rate = float(np.asarray(self.model.optimizer.learning_rate)) / 2
        kernel = self.model.layers[-1].kernel
        kernel.assign(kernel * 1.5)


@pytest.mark.parametrize(
    ("kind", "replicas"),
    here([(counterpart, 1), (own, 1), (foreign, 1), (counterpart, 2), (foreign, 2)], [(own, 1)], "slow", True),
)
def test_what_callbacks_do_when_an_epoch_begins_is_done_once(
    kind: Any, replicas: int, cut: Callable[..., Path]
) -> None:
    """They are told of it again, in the new process."""
    whole, again = Rises(), Rises()
    expected = fit(kind(0.5), devices=replicas, callbacks=[whole])
    run = cut(kind(0.5), devices=replicas, callbacks=[Rises()])
    found = fit(kind(0.5), run_dir=run, resume=True, devices=replicas, callbacks=[again])
    assert rates(found) == rates(expected) == [0.0625]
    assert (again.calls, again.odd) == (whole.calls, whole.odd) == (2, False)
    for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", here([foreign, own, own_second, by_hand], [by_hand]), ids=lambda kind: kind.__name__)
def test_a_rate_that_cannot_be_assigned(kind: Any, cut: Callable[..., Path]) -> None:
    """A function, or none: such a run could not go on."""
    expected = fit(kind(quarter))
    run = cut(kind(quarter))
    found = fit(kind(quarter), run_dir=run, resume=True)
    for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "kind", here([foreign, counterpart, own], [foreign], "compile"), ids=lambda kind: kind.__name__
)
def test_a_function_is_called_as_by_fit(kind: Any, tmp_path: Path) -> None:
    expected = kind(quarter)
    expected.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    found = fit(kind(quarter), shuffle=False)
    for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="restore' halves the rate, but here a schedule or function decides it"):
        fit(kind(quarter), on_divergence="restore", run_dir=tmp_path / "run")


def test_the_rate_inside_a_loss_scale() -> None:
    """It was 0 in logs, and halved nowhere."""
    model = own_float16(0.25)
    optimizer = OwnStepOptimizer(model)
    assert float(optimizer.rate_at(0)) == optimizer.learning_rate == 0.25
    optimizer.learning_rate = 0.125
    assert rates(model) == [0.125]


def test_a_rate_of_zero_stays() -> None:
    optimizer = OwnStepOptimizer(own(0.0))
    optimizer.learning_rate = 0.0
    with pytest.raises(ConfigError, match="a rate of 0 cannot be scaled"):
        optimizer.learning_rate = 0.5
