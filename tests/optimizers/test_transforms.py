"""Clipping, weight decay and averages: against Keras's, and what they promise besides."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers import SGD, Adam, AdamW, RMSprop
from tfmb.optimizers.transforms import clip_by_global_norm, clip_by_norm, clip_by_value, global_norm

CLIPS: dict[str, Callable[..., Any]] = {
    "global_clipnorm": clip_by_global_norm,
    "clipnorm": clip_by_norm,
    "clipvalue": clip_by_value,
}
each = pytest.mark.parametrize("option", CLIPS)
SHAPES = {"kernel": (4, 3), "bias": (3,), "scale": ()}


def some_gradients(update: int) -> list[Any]:
    random = np.random.default_rng(update)
    return [tf.constant(random.normal(size=shape), tf.float32) for shape in SHAPES.values()]


def some_weights() -> list[Any]:
    random = np.random.default_rng(99)
    return [keras.Variable(random.normal(size=shape), name=name) for name, shape in SHAPES.items()]


def assert_close(found: list[Any], right: list[Any]) -> None:
    for a, b in zip(found, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@each
@pytest.mark.parametrize("limit", [0.01, 0.5, 1.7, 100.0])
@pytest.mark.parametrize("left_out", [None, 0])
def test_clipping_is_that_of_keras(option: str, limit: float, left_out: int | None) -> None:
    gradients = [None if i == left_out else g for i, g in enumerate(some_gradients(0))]
    ours, right = some_weights(), some_weights()
    clip: dict[str, Any] = {option: limit}
    SGD(1.0, **clip).apply(gradients, ours)
    pairs = [(g, v) for g, v in zip(gradients, right, strict=True) if g is not None]
    keras.optimizers.SGD(1.0, **clip).apply_gradients(pairs)
    assert_close([v.numpy() for v in ours], [v.numpy() for v in right])


@each
def test_below_the_limit_nothing_changes_by_a_bit_and_none_stays(option: str) -> None:
    gradients = [*some_gradients(0), None]
    found, clipped = CLIPS[option](gradients, 1e3)
    assert not clipped
    assert found[-1] is None
    for a, b in zip(found[:-1], gradients[:-1], strict=True):
        np.testing.assert_array_equal(a, b)


@each
@pytest.mark.parametrize("compiled", [False, True])
def test_apply_says_whether_it_clipped(option: str, compiled: bool) -> None:
    clip: dict[str, Any] = {option: 1.0}
    weights, optimizer = some_weights(), SGD(0.1, **clip)
    optimizer.build(weights)
    assert optimizer.clips
    apply = tf.function(optimizer.apply) if compiled else optimizer.apply
    large = [tf.ones(shape) * 2.0 for shape in SHAPES.values()]
    small = [tf.ones(shape) * 1e-2 for shape in SHAPES.values()]
    assert [bool(apply(g)) for g in (large, small, [tf.zeros_like(g) for g in small])] == [True, False, False]
    assert all(np.all(np.isfinite(v.numpy())) for v in weights)


def test_without_a_limit_nothing_is_clipped() -> None:
    optimizer = SGD(0.1)
    assert not optimizer.clips
    assert not optimizer.apply([g * 1e6 for g in some_gradients(0)], some_weights())


def test_norms_after_clipping() -> None:
    gradients = some_gradients(0)
    flat = np.concatenate([np.ravel(g) for g in gradients])
    np.testing.assert_allclose(global_norm([*gradients, None]), np.linalg.norm(flat), rtol=1e-6)
    np.testing.assert_allclose(global_norm(clip_by_global_norm(gradients, 0.3)[0]), 0.3, rtol=1e-6)
    each_norm = [float(global_norm([g])) for g in clip_by_norm(gradients, 1e-3)[0]]
    np.testing.assert_allclose(each_norm, 1e-3, rtol=1e-6)
    assert max(float(tf.reduce_max(abs(g))) for g in clip_by_value(gradients, 0.2)[0]) == np.float32(0.2)


@pytest.mark.parametrize(
    "excluded", [{}, {"names": ["bias"]}, {"names": ["^s", "kern"]}, {"numbers": [0]}, {"numbers": [1, 2]}], ids=str
)
def test_weight_decay_is_that_of_keras_adamw(excluded: dict[str, Any]) -> None:
    weights, others = some_weights(), some_weights()
    ours = AdamW(0.01, weight_decay=0.1)
    right = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    for optimizer, variables in ((ours, weights), (right, others)):
        chosen = [variables[i] for i in excluded.get("numbers", [])]
        optimizer.exclude_from_weight_decay(var_list=chosen, var_names=excluded.get("names"))
    for update in range(10):
        gradients = some_gradients(update)
        ours.apply(gradients, weights)
        right.apply_gradients(list(zip(gradients, others, strict=True)))
        assert_close([v.numpy() for v in weights], [v.numpy() for v in others])


@pytest.mark.parametrize("make", [SGD, RMSprop, Adam])
def test_decay_subtracts_rate_times_factor_times_weight(make: Any) -> None:
    plain, decayed = some_weights(), some_weights()
    make(0.1).apply(some_gradients(0), plain)
    make(0.1, weight_decay=0.5).apply(some_gradients(0), decayed)
    for a, b, start in zip(plain, decayed, some_weights(), strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy() - 0.05 * start.numpy(), atol=1e-6)


@pytest.mark.parametrize("frequency", [None, 1, 3, 10])
@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("compiled", [False, True])
def test_averages_are_those_of_keras(frequency: int | None, momentum: float, compiled: bool) -> None:
    options: dict[str, Any] = {"use_ema": True, "ema_momentum": momentum, "ema_overwrite_frequency": frequency}
    weights, others = some_weights(), some_weights()
    ours, right = SGD(0.1, **options), keras.optimizers.SGD(0.1, **options)
    ours.build(weights)
    right.build(others)
    apply = tf.function(ours.apply) if compiled else ours.apply
    for update in range(10):
        gradients = some_gradients(update)
        apply(gradients)
        right.apply_gradients(list(zip(gradients, others, strict=True)))
        assert_close([v.numpy() for v in weights], [v.numpy() for v in others])
        averages = right._model_variables_moving_average
        assert_close([v.numpy() for v in ours.averages], [v.numpy() for v in averages])
    ours.overwrite_with_averages()
    right.finalize_variable_values(others)
    assert_close([v.numpy() for v in weights], [v.numpy() for v in others])


def test_overwriting_does_nothing_without_averages_or_before_an_update() -> None:
    for optimizer in (SGD(0.1), SGD(0.1, use_ema=True)):
        weights = some_weights()
        optimizer.overwrite_with_averages()
        optimizer.build(weights)
        optimizer.overwrite_with_averages()
        assert_close([v.numpy() for v in weights], [v.numpy() for v in some_weights()])


REFUSED: list[dict[str, Any]] = [
    {"clipnorm": 1.0, "clipvalue": 1.0},
    {"clipnorm": 1.0, "global_clipnorm": 1.0},
    {"clipvalue": -1.0},
    {"clipnorm": 0.0},
    {"global_clipnorm": float("nan")},
    {"clipvalue": True},
    {"weight_decay": -0.1},
    {"ema_momentum": 1.1},
    {"ema_momentum": -0.1},
    {"ema_overwrite_frequency": 0},
    {"ema_overwrite_frequency": 2.5},
    {"use_ema": True, "ema_overwrite_frequency": -1},
]


@pytest.mark.parametrize("options", REFUSED, ids=str)
@pytest.mark.parametrize("make", [SGD, Adam])
def test_refusals_name_the_option_in_one_line(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=list(options)[-1]) as caught:
        make(0.1, **options)
    assert "\n" not in str(caught.value)


def test_exclusion_after_the_build_is_refused() -> None:
    optimizer = AdamW(0.1)
    optimizer.build(some_weights())
    with pytest.raises(ConfigError, match="before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
