"""An update in XLA is the plain one, or none at all, and copies no slot."""

import re
from typing import Any

import numpy as np
import pytest

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from tfmb.optimizers.foreign import ForeignOptimizer

pytestmark = pytest.mark.usefixtures("fresh_keras")

SHAPE, UPDATES = (24, 16), 5


class Named(Adam):
    """A subclass with a step of its own."""

    def step(self, gradient: Any, slots: Any, rate: Any, count: Any) -> Any:
        return super().step(gradient, slots, rate, count)


OPTIMIZERS: dict[str, Any] = {
    "SGD": lambda: SGD(0.1, weight_decay=0.1),
    "momentum": lambda: SGD(0.1, 0.9),
    "Nesterov": lambda: SGD(0.1, 0.9, nesterov=True, rate_in_velocity=True),
    "RMSprop": lambda: RMSprop(0.1),
    "RMSprop, all slots": lambda: RMSprop(0.1, momentum=0.9, centered=True),
    "Adam": lambda: Adam(0.1, global_clipnorm=1.0),
    "Adam, largest": lambda: Adam(0.1, amsgrad=True, epsilon_hat=False),
    "AdamW, averages": lambda: AdamW(0.1, 0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3),
    "subclass": lambda: Named(0.1),
}


def gradients(number: int) -> list[Any]:
    numbers = np.random.default_rng(number)
    return [tf.constant(numbers.normal(size=shape)) for shape in (SHAPE, SHAPE[1:])]


def weights() -> list[Any]:
    return [tf.Variable(0.1 * gradient) for gradient in gradients(99)]


def state(optimizer: Optimizer, trained: list[Any]) -> list[Any]:
    return [variable.numpy() for variable in [*trained, *optimizer.variables]]


def compiled(optimizer: Optimizer, trained: list[Any]) -> Any:
    optimizer.build(trained)
    return tf.function(lambda grads, made: optimizer.apply(grads, made=made), jit_compile=True, autograph=False)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_are_those_of_the_plain_function(name: str) -> None:
    plain, ours = OPTIMIZERS[name](), OPTIMIZERS[name]()
    expected, found = weights(), weights()
    plain.build(expected)
    apply = compiled(ours, found)
    for number in range(UPDATES):
        clipped = apply(gradients(number), tf.constant(True))
        assert bool(clipped) == bool(plain.apply(gradients(number)))
        for a, b in zip(state(ours, found), state(plain, expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update_that_is_not_made_changes_no_bit(name: str) -> None:
    optimizer, trained = OPTIMIZERS[name](), weights()
    apply = compiled(optimizer, trained)
    for number in range(2):
        apply(gradients(number), tf.constant(True))
    before = state(optimizer, trained)
    for bad in (float("nan"), float("inf"), 1.0):
        apply([bad * gradient for gradient in gradients(2)], tf.constant(False))
        for a, b in zip(state(optimizer, trained), before, strict=True):
            np.testing.assert_array_equal(a, b)
    apply(gradients(2), tf.constant(True))
    assert int(optimizer.iterations.numpy()) == 3
    assert not np.array_equal(trained[0].numpy(), before[0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_slot_is_copied_in_a_loop(name: str) -> None:
    assert copies(OPTIMIZERS[name]()) == 0


class Unsettled(Adam):
    """Makes its step of new slots that were not written first."""

    def moments(self, gradient: Any, slots: Any, rate: Any, square: Any = None) -> Any:
        self.new = super().moments(gradient, slots, rate, square)
        return self.new

    def step(self, gradient: Any, slots: Any, rate: Any, count: Any) -> Any:
        return super().step(gradient, self.new, rate, count)


def test_copies_can_be_seen() -> None:
    """What the barrier spares, so that the test above can fail."""
    assert copies(Unsettled(0.1)) >= 1


def copies(optimizer: Optimizer) -> int:
    """How often XLA's program copies a tensor of the kernel's shape, in a loop of updates."""
    trained = weights()
    optimizer.build(trained)

    def loop(count: Any) -> Any:
        def body(step: Any) -> Any:
            optimizer.apply([tf.sin(weight * tf.cast(step, weight.dtype)) for weight in trained], made=step < 7)
            return step + 1

        return tf.while_loop(lambda step: step < count, body, [tf.constant(0)])

    program = tf.function(loop, jit_compile=True, autograph=False).experimental_get_compiler_ir(tf.constant(9))(
        stage="optimized_hlo"
    )
    body = program[: program.index("ENTRY")]
    return len(re.findall(rf"f64\[{SHAPE[0]},{SHAPE[1]}\]\S* copy\(", body))


def test_keras_optimizers_refuse_the_choice() -> None:
    optimizer, trained = ForeignOptimizer(keras.optimizers.Lion(0.1)), weights()
    optimizer.build(trained)
    with pytest.raises(ConfigError, match="cannot choose in XLA"):
        optimizer.apply(gradients(0), made=tf.constant(True))
