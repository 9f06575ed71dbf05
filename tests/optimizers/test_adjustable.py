"""A hyper-parameter that is a variable gives the bits of a Python float, and changes without another trace."""

from typing import Any

import numpy as np
import pytest

from tfmb.backend import tf
from tfmb.optimizers import SGD, Adam, RMSprop
from tfmb.optimizers.adjustable import Adjustable

RULES: list[tuple[Any, dict[str, float]]] = [
    (lambda **given: SGD(0.1, **given), {"momentum": 0.9}),
    (lambda **given: SGD(0.1, nesterov=True, **given), {"momentum": 0.7}),
    (lambda **given: RMSprop(0.1, centered=True, **given), {"momentum": 0.3, "rho": 0.8}),
    (lambda **given: Adam(0.1, **given), {"beta_1": 0.8, "beta_2": 0.99}),
    (lambda **given: Adam(0.1, amsgrad=True, **given), {"beta_1": 0.7, "beta_2": 0.9}),
]


def trained(optimizer: Any, dtype: str) -> tuple[list[Any], Any]:
    """The weights after each of five updates, and the traced update."""
    random = np.random.default_rng(0)
    weight = tf.Variable(random.normal(size=17).astype(dtype))
    optimizer.build([weight])
    update = tf.function(lambda gradient: optimizer.apply([gradient]))
    found = []
    for _ in range(5):
        update(tf.constant(random.normal(size=17).astype(dtype)))
        found.append(weight.numpy())
    return found, update


@pytest.mark.parametrize("as_keras", [False, True], ids=["ours", "rounded as Keras does"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("make", "values"), RULES)
def test_bits_are_those_of_a_float(make: Any, values: dict[str, float], dtype: str, as_keras: bool) -> None:
    rounds = make(**values)
    rounds.rounds_as_keras = as_keras
    expected, _ = trained(rounds, dtype)
    optimizer = make(**dict.fromkeys(values, 0.5))
    optimizer.rounds_as_keras = as_keras
    for name in values:
        setattr(optimizer, name, Adjustable(0.5))
        assert float(getattr(optimizer, name)) == 0.5
    before, update = trained(optimizer, dtype)
    for name, value in values.items():
        getattr(optimizer, name).assign(value)
    for variable in optimizer.variables:
        variable.assign(tf.zeros_like(variable))
    random, weight = np.random.default_rng(0), optimizer._variables[0]
    weight.assign(random.normal(size=17).astype(dtype))
    for right in expected:
        update(tf.constant(random.normal(size=17).astype(dtype)))
        np.testing.assert_array_equal(weight.numpy(), right)
    assert update.experimental_get_tracing_count() == 1
    assert np.any(before[-1] != expected[-1])
