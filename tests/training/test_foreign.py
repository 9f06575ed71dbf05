"""Keras optimizers without a counterpart of ours, the user's own among them, step in `tfmb.fit` as in `fit`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import here

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers import interop
from tfmb.optimizers.foreign import ForeignOptimizer

layers, optimizers = keras.layers, keras.optimizers
_random = np.random.default_rng(0)
X = _random.normal(size=(37, 4)).astype("float32")
Y = _random.integers(0, 3, 37)
FIT: dict[str, Any] = {"batch_size": 8, "verbose": 0, "shuffle": False}  # five updates an epoch
EPOCHS = 8


class SignedAdam(keras.optimizers.Adam):
    """A user's own: Adam of gradients that are bent a little."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient + 0.01 * keras.ops.tanh(gradient), variable, learning_rate)


RULES: dict[str, Callable[..., Any]] = {
    "nadam": lambda **more: optimizers.Nadam(0.005, **more),
    "lion": lambda **more: optimizers.Lion(0.001, **more),
    "adagrad": lambda **more: optimizers.Adagrad(0.05, **more),
    "own": lambda **more: SignedAdam(0.005, **more),
}


def build(optimizer: Any) -> Any:
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, "tanh"), layers.Dense(3, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def trained(fit: Callable[..., Any], optimizer: Any, **arguments: Any) -> Any:
    model = build(optimizer)
    fit(model, X, Y, **{**FIT, "epochs": EPOCHS, **arguments})
    return model


def assert_close(one: Any, other: Any, tolerance: float) -> None:
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


@pytest.mark.compile
@pytest.mark.parametrize("rule", list(RULES))
def test_forty_updates_are_those_of_fit_on_one_device_and_on_two(rule: str) -> None:
    assert isinstance(interop.get(RULES[rule]()), ForeignOptimizer)
    expected = trained(keras.Model.fit, RULES[rule]())
    one = trained(tfmb.fit, RULES[rule]())
    two = trained(tfmb.fit, RULES[rule](), devices=2)
    assert_close(one, expected, 2e-6)
    assert_close(two, one, 1e-6)
    assert not np.allclose(one.get_weights()[0], build(RULES[rule]()).get_weights()[0], atol=1e-3)


@pytest.mark.compile
@pytest.mark.parametrize("rule", here(["nadam", "adagrad"], ["nadam"]))
@pytest.mark.parametrize("option", [{"global_clipnorm": 0.05}, {"clipvalue": 0.01}, {"weight_decay": 0.01}])
def test_options_of_keras_hold_on_two_replicas(rule: str, option: dict[str, float]) -> None:
    expected = trained(keras.Model.fit, RULES[rule](**option))
    assert_close(trained(tfmb.fit, RULES[rule](**option), devices=2), expected, 5e-6)
    plain = trained(keras.Model.fit, RULES[rule]())
    assert not np.allclose(plain.get_weights()[0], expected.get_weights()[0], atol=1e-5)


class PlainDescent(keras.optimizers.SGD):
    """A subclass has no counterpart of ours, so Keras's own rule is used."""


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_clipped_step_has_the_right_length(replicas: int) -> None:
    model = build(PlainDescent(0.5, global_clipnorm=0.01))
    before = model.get_weights()
    tfmb.fit(model, X[:7], Y[:7], devices=replicas, **FIT)
    moved = [a - b for a, b in zip(model.get_weights(), before, strict=True)]
    assert np.sqrt(sum(np.sum(move**2) for move in moved)) == pytest.approx(0.5 * 0.01, rel=1e-4)


@pytest.mark.compile
@pytest.mark.parametrize("replicas", [1, 2])
def test_averages_are_written_at_the_end_as_by_fit(replicas: int) -> None:
    def make() -> Any:
        return optimizers.Nadam(0.01, use_ema=True, ema_momentum=0.9)

    assert_close(trained(tfmb.fit, make(), devices=replicas), trained(keras.Model.fit, make()), 5e-6)


@pytest.mark.compile
@pytest.mark.parametrize("rule", ["nadam", "own"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_second_call_goes_on_with_the_state(rule: str, replicas: int) -> None:
    expected = trained(tfmb.fit, RULES[rule](), devices=replicas)
    parts = trained(tfmb.fit, RULES[rule](), devices=replicas, epochs=3)
    tfmb.fit(parts, X, Y, epochs=EPOCHS, initial_epoch=3, devices=replicas, **FIT)
    assert_close(parts, expected, 1e-6)
    assert_close(parts, trained(keras.Model.fit, RULES[rule]()), 3e-6)


@pytest.mark.compile
def test_second_call_on_other_replicas_goes_on_with_the_state() -> None:
    parts = trained(tfmb.fit, RULES["nadam"](), epochs=2)
    tfmb.fit(parts, X, Y, epochs=5, initial_epoch=2, devices=2, **FIT)
    tfmb.fit(parts, X, Y, epochs=EPOCHS, initial_epoch=5, **FIT)
    assert_close(parts, trained(keras.Model.fit, RULES["nadam"]()), 3e-6)


@pytest.mark.compile
def test_schedule_of_keras_is_followed() -> None:
    def make() -> Any:
        return optimizers.Nadam(optimizers.schedules.ExponentialDecay(0.02, 10, 0.5))

    assert_close(trained(tfmb.fit, make(), devices=2), trained(keras.Model.fit, make()), 3e-6)


@pytest.mark.compile
@pytest.mark.parametrize("replicas", [1, 2])
def test_callback_sets_the_rate(replicas: int) -> None:
    def halving() -> list[Any]:
        return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)]

    expected = trained(keras.Model.fit, RULES["adagrad"](), callbacks=halving())
    assert_close(trained(tfmb.fit, RULES["adagrad"](), callbacks=halving(), devices=replicas), expected, 3e-6)


class Counted(keras.optimizers.Lion):
    """A user's own that accumulates."""


OF_KERAS: dict[str, Callable[[], Any]] = {
    "accumulating sgd": lambda: optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=3),
    "accumulating adam": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2, global_clipnorm=0.1),
    "accumulating nadam": lambda: optimizers.Nadam(0.01, gradient_accumulation_steps=2),
    "accumulating own": lambda: Counted(0.01, gradient_accumulation_steps=2),
    "scaled sgd": lambda: optimizers.SGD(0.1, momentum=0.9, loss_scale_factor=1024.0),
    "scaled adam": lambda: optimizers.Adam(0.01, loss_scale_factor=8.0, clipnorm=0.05),
    "scaled nadam": lambda: optimizers.Nadam(0.01, loss_scale_factor=8.0),
    "both": lambda: optimizers.AdamW(0.01, loss_scale_factor=8.0, gradient_accumulation_steps=2),
}


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("replicas", here([1, 2], [1], "compile"))
@pytest.mark.parametrize("name", here(OF_KERAS, ["accumulating nadam", "scaled adam", "both"]))
def test_accumulation_and_a_fixed_loss_scale_are_kerass(name: str, replicas: int) -> None:
    """Forty updates: a number that accumulates in threes and fours is not through at an epoch's end, either."""
    x = X.astype("float64")
    expected, found = build(OF_KERAS[name]()), build(OF_KERAS[name]())
    before = found.get_weights()
    theirs = expected.fit(x, Y, epochs=EPOCHS, **FIT)
    ours = tfmb.fit(found, x, Y, epochs=EPOCHS, devices=replicas, **FIT)
    assert_close(found, expected, 1e-11)
    np.testing.assert_allclose(ours.history["loss"], theirs.history["loss"], rtol=0, atol=1e-11)
    assert int(found.optimizer.iterations.numpy()) == int(expected.optimizer.iterations.numpy())
    assert not np.allclose(found.get_weights()[0], before[0], atol=1e-3)


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
def test_accumulated_gradients_wait_for_the_next_call() -> None:
    """Five batches, then as many again: with three to an update the sixth makes one with two of the first call."""
    x = X.astype("float64")
    expected, found = build(OF_KERAS["accumulating sgd"]()), build(OF_KERAS["accumulating sgd"]())
    for first in (0, 1):
        expected.fit(x, Y, epochs=first + 1, initial_epoch=first, **FIT)
        tfmb.fit(found, x, Y, epochs=first + 1, initial_epoch=first, **FIT)
        assert_close(found, expected, 1e-11)
    for a, b in zip(found.optimizer.variables, expected.optimizer.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-11)


def test_update_without_a_gradient_is_refused() -> None:
    optimizer, variable = ForeignOptimizer(optimizers.Lion()), keras.Variable(np.ones(2, "float32"))
    with pytest.raises(ConfigError, match="no gradient"):
        optimizer.apply([None], [variable])
    optimizer.apply([tf.ones(2)], [variable])
    assert int(optimizer.iterations.numpy()) == 1


def test_a_schedule_is_told_by_what_it_is() -> None:
    """A run that goes on is compared with it: by its place in memory it would be refused, by nothing passed over."""
    schedules = [optimizers.schedules.CosineDecay(0.1, steps) for steps in (3, 3, 4)]
    found = [ForeignOptimizer(optimizers.Nadam(schedule, name="mine")).get_config() for schedule in schedules]
    assert found[0] == found[1] != found[2]


@pytest.mark.compile
@pytest.mark.parametrize("replicas", [1, 2])
def test_state_that_keras_does_not_list_is_state(replicas: int) -> None:
    """Nadam makes its product while its `LossScaleOptimizer` forbids Keras to look."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build(optimizers.Nadam(0.01))
    finally:
        keras.config.set_dtype_policy("float32")
    tfmb.fit(model, X, Y, devices=replicas, **FIT)
    inner = model.optimizer.inner_optimizer
    if replicas == 2:  # Keras's own was then built by Keras
        assert not any(variable is inner._u_product for variable in inner.variables)
    product = float(inner._u_product.numpy())
    assert 0 < product < 1
    ours = interop.from_keras(model.optimizer)
    ours.build(model.trainable_variables)
    assert any(variable is inner._u_product.value for variable in ours.variables)


@pytest.mark.compile
def test_schedule_free_adamw_begins_with_the_weights() -> None:
    """Keras's does where it is built before `fit` traces it; else it begins with zeros, and the weights are lost."""

    def built(fit: Callable[..., Any]) -> Any:
        model = build(optimizers.ScheduleFreeAdamW(0.005))
        model.optimizer.build(model.trainable_variables)
        fit(model, X, Y, **FIT)
        return model

    right = built(keras.Model.fit)
    assert_close(built(tfmb.fit), right, 1e-6)
    assert_close(trained(tfmb.fit, optimizers.ScheduleFreeAdamW(0.005), epochs=1), right, 1e-6)
