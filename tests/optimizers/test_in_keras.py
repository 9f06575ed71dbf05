"""`as_keras`: our rules in `keras.Model.compile`, saved and loaded with the model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import here

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, as_keras
from tfmb.optimizers.in_keras import KerasOptimizer
from tfmb.optimizers.schedules import Exponential, Warmup

PAIRS: dict[str, tuple[Any, Any]] = {
    "SGD": (lambda: SGD(1e-3), lambda: keras.optimizers.SGD(1e-3)),
    "momentum": (
        lambda: SGD(1e-3, momentum=0.9, rate_in_velocity=True),
        lambda: keras.optimizers.SGD(1e-3, momentum=0.9),
    ),
    "RMSprop": (
        lambda: RMSprop(1e-3, centered=True),
        lambda: keras.optimizers.RMSprop(1e-3, centered=True),
    ),
    "Adam": (lambda: Adam(1e-3), lambda: keras.optimizers.Adam(1e-3)),
    "AdamW": (lambda: AdamW(1e-3, weight_decay=0.1), lambda: keras.optimizers.AdamW(1e-3, weight_decay=0.1)),
    "clipped and averaged": (
        lambda: SGD(1e-3, global_clipnorm=0.1, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=7),
        lambda: keras.optimizers.SGD(
            1e-3, global_clipnorm=0.1, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=7
        ),
    ),
    "schedule": (
        lambda: SGD(Exponential(1e-2, 10, 0.5)),
        lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(1e-2, 10, 0.5)),
    ),
}


def make_model(optimizer: Any) -> Any:
    keras.utils.set_random_seed(3)
    layers = [keras.Input((4,)), keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(optimizer, "mse", jit_compile=False)
    return model


def train(model: Any, epochs: int) -> Any:
    """Five updates an epoch."""
    random = np.random.default_rng(1)
    x = random.normal(size=(20, 4)).astype("float32")
    y = np.sin(x.sum(axis=1, keepdims=True))
    model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0)
    return model


def assert_weights(found: Any, right: Any, tolerance: float = 0.0) -> None:
    for a, b in zip(found.get_weights(), right.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


@pytest.mark.compile
@pytest.mark.parametrize("name", here(PAIRS, list(PAIRS)[::3]))
def test_a_hundred_updates_are_those_of_keras(name: str) -> None:
    ours, right = PAIRS[name]
    start, found = make_model("sgd"), train(make_model(as_keras(ours())), 20)
    assert int(found.optimizer.iterations) == 100
    assert_weights(found, train(make_model(right()), 20), 2e-6)
    assert any(np.any(a != b) for a, b in zip(found.get_weights(), start.get_weights(), strict=True))


@pytest.mark.parametrize(
    "ours",
    [Adam(1e-3, epsilon_hat=False), SGD(1e-3, momentum=0.9), AdamW(Warmup(Exponential(1e-2, 10, 0.5), 12))],
    ids=["Adam", "momentum", "AdamW with a schedule"],
)
def test_a_loaded_model_goes_on_as_if_it_had_not_been_saved(ours: Optimizer, tmp_path: Path) -> None:
    model = train(make_model(as_keras(ours)), 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, KerasOptimizer)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert int(loaded.optimizer.iterations) == 10
    assert_weights(train(loaded, 2), train(model, 2))


def test_an_assigned_rate_is_saved(tmp_path: Path) -> None:
    model = train(make_model(as_keras(SGD(1e-3))), 1)
    model.optimizer.learning_rate = 0.25
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.learning_rate) == 0.25
    assert loaded.optimizer.to_tfmb().learning_rate == 0.25


@pytest.mark.parametrize("name", PAIRS)
def test_our_optimizer_can_be_had_back(name: str) -> None:
    ours = PAIRS[name][0]()
    back = as_keras(ours).to_tfmb()
    assert type(back) is type(ours)
    right = ours.get_config()
    found = back.get_config()
    if isinstance(right["learning_rate"], float):
        assert found.pop("learning_rate") == pytest.approx(right.pop("learning_rate"), rel=1e-6)
    # Keras gives a number to those that nobody named.
    assert found.pop("name").replace("_", "").startswith(right.pop("name"))
    assert found == right


def test_decay_spares_what_was_excluded() -> None:
    """Both before the wrapping and after it, as Keras's own does."""
    right = keras.optimizers.AdamW(1e-3, weight_decay=5.0)
    right.exclude_from_weight_decay(var_names=["bias"])
    after = as_keras(AdamW(1e-3, weight_decay=5.0))
    after.exclude_from_weight_decay(var_names=["bias"])
    assert_weights(train(make_model(after), 1), train(make_model(right), 1), 2e-6)


def test_an_exclusion_made_before_the_wrapping_holds() -> None:
    ours, right = AdamW(1e-3, weight_decay=5.0), keras.optimizers.AdamW(1e-3, weight_decay=5.0)
    for optimizer in (ours, right):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    assert_weights(train(make_model(as_keras(ours)), 1), train(make_model(right), 1), 2e-6)


class Own(SGD):
    pass


def test_refusals() -> None:
    used = SGD(0.1)
    used.apply([tf.constant([1.0])], [tf.Variable([1.0])])
    cases: list[tuple[Optimizer, str]] = [(Own(0.1), "not Own"), (used, "used already")]
    for optimizer, words in cases:
        with pytest.raises(ConfigError, match=words) as caught:
            as_keras(optimizer)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="rule='Lion' must be one of"):
        KerasOptimizer("Lion", {"learning_rate": 0.1})


def test_one_of_kerass_schedules_trains_and_is_saved(tmp_path: Path) -> None:
    def build(optimizer: Any) -> Any:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(optimizer, "mse")
        return model

    x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    ours, theirs = build(as_keras(SGD(rate))), build(keras.optimizers.SGD(rate))
    for model in (ours, theirs):
        model.fit(x, x[:, :1], batch_size=4, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(ours.get_weights()[0], theirs.get_weights()[0], rtol=1e-6)
    ours.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(x, x[:, :1], batch_size=4, shuffle=False, verbose=0)
    theirs.fit(x, x[:, :1], batch_size=4, shuffle=False, verbose=0)
    np.testing.assert_allclose(loaded.get_weights()[0], theirs.get_weights()[0], rtol=1e-6)
    assert loaded.optimizer.to_tfmb().get_config()["learning_rate"]["decay_rate"] == 0.5
