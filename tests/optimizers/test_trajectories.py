"""Whole runs of the public classes in float64: known trajectories, known dynamics, and the oracle."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import oracle
import pytest

from tfmb.backend import tf
from tfmb.optimizers import SGD, Adam, AdamW, Momentum, Optimizer, RMSprop

CLASSES: dict[str, Any] = {"sgd": SGD, "momentum": Momentum, "rmsprop": RMSprop, "adam": Adam}

GRADIENTS = (0.5, -0.3, 0.2, 0.1, -0.4)
CONSTANT = (0.1,) * 5
CHANGING = (0.1, 0.1, 0.01, 0.01, 0.01)

# From weight 1, rate 0.1: the weights after each of the five updates. Ten decimals, so 1e-9 is what they can tell.
TRAJECTORIES: dict[str, tuple[Callable[[], Optimizer], tuple[float, ...]]] = {
    "SGD": (lambda: SGD(0.1), (0.95, 0.98, 0.96, 0.95, 0.99)),
    "momentum": (lambda: SGD(0.1, 0.9), (0.95, 0.935, 0.9015, 0.86135, 0.865215)),
    "Nesterov": (lambda: SGD(0.1, 0.9, nesterov=True), (0.905, 0.9215, 0.87135, 0.825215, 0.8686935)),
    "momentum, rate inside": (
        lambda: SGD(0.1, 0.9, rate_in_velocity=True),
        (0.95, 0.935, 0.9015, 0.86135, 0.865215),
    ),
    "RMSprop": (lambda: RMSprop(0.1), (0.6837728664, 0.8528034491, 0.7416066766, 0.6839820870, 0.8766472612)),
    "RMSprop with momentum": (
        lambda: RMSprop(0.1, momentum=0.9),
        (0.6837728664, 0.5681990289, 0.3529858026, 0.1016693093, 0.0681496396),
    ),
    "RMSprop centered": (
        lambda: RMSprop(0.1, centered=True),
        (0.6666674074, 0.8363049221, 0.7231277200, 0.6638960302, 0.8565945986),
    ),
    "Adam": (lambda: Adam(0.1), (0.9000006325, 0.8808509328, 0.8461083421, 0.8087004355, 0.8115467927)),
    "Adam, Algorithm 1": (
        lambda: Adam(0.1, epsilon_hat=False),
        (0.9000000200, 0.8808502211, 0.8461074618, 0.8086993776, 0.8115457460),
    ),
    "AdamW": (lambda: AdamW(0.1, 0.01), (0.8990006325, 0.8789519322, 0.8433303895, 0.8050791526, 0.8071204306)),
}
CHANGING_TRAJECTORIES: dict[str, tuple[Callable[[], Optimizer], tuple[float, ...]]] = {
    "rate inside": (lambda: SGD(0.1, 0.9, rate_in_velocity=True), (0.95, 0.935, 0.9195, 0.90455, 0.895095)),
    "rate outside": (lambda: SGD(0.1, 0.9), (0.95, 0.935, 0.93165, 0.927635, 0.9280215)),
}


def weights_after_each(optimizer: Optimizer, rates: Sequence[float]) -> list[float]:
    weight = tf.Variable(1.0, dtype=tf.float64)
    found = []
    for gradient, rate in zip(GRADIENTS, rates, strict=True):
        if rate != optimizer.learning_rate:
            optimizer.learning_rate = rate
        optimizer.apply([tf.constant(gradient, tf.float64)], [weight])
        found.append(float(weight.numpy()))
    return found


def check(optimizer: Optimizer, expected: Sequence[float], rates: Sequence[float] = CONSTANT) -> None:
    np.testing.assert_allclose(weights_after_each(optimizer, rates), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_known_trajectory(name: str) -> None:
    make, expected = TRAJECTORIES[name]
    check(make(), expected)


@pytest.mark.parametrize("name", CHANGING_TRAJECTORIES)
def test_known_trajectory_with_a_changing_rate(name: str) -> None:
    make, expected = CHANGING_TRAJECTORIES[name]
    check(make(), expected, CHANGING)


# ---- faults of the classes around the rules, which the trajectories must catch ----


class Miscounted(Adam):
    by = 0

    def step(self, gradient: Any, slots: Any, rate: Any, count: Any) -> Any:
        return super().step(gradient, slots, rate, count + self.by)


class CountsFromZero(Miscounted):
    by = -1


class CountsFromTwo(Miscounted):
    by = 1


class ForgetsSlots(Adam):
    def moments(self, gradient: Any, slots: Any, rate: Any, square: Any = None) -> Any:
        self.right = super().moments(gradient, slots, rate, square)
        return slots

    def step(self, gradient: Any, slots: Any, rate: Any, count: Any) -> Any:
        return super().step(gradient, self.right, rate, count)


class CoupledDecay(Adam):
    def apply(self, gradients: Any, trainable_variables: Any = None, **more: Any) -> None:
        super().apply(
            [g + 0.01 * w for g, w in zip(gradients, trainable_variables, strict=True)], trainable_variables, **more
        )


class DecayWithoutRate(Adam):
    def apply(self, gradients: Any, trainable_variables: Any = None, **more: Any) -> None:
        decays = [0.01 * w for w in trainable_variables]
        super().apply(gradients, trainable_variables, **more)
        for weight, decay in zip(trainable_variables, decays, strict=True):
            weight.assign_sub(decay)


class DecayAfterStep(Adam):
    def apply(self, gradients: Any, trainable_variables: Any = None, **more: Any) -> None:
        super().apply(gradients, trainable_variables, **more)
        for weight in trainable_variables:
            weight.assign_sub(self.learning_rate * 0.01 * weight)


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("Adam", CountsFromZero),
        ("Adam", CountsFromTwo),
        ("Adam", ForgetsSlots),
        ("AdamW", Adam),
        ("AdamW", CoupledDecay),
        ("AdamW", DecayWithoutRate),
        ("AdamW", DecayAfterStep),
    ],
)
def test_trajectories_catch_faults_of_the_class(row: str, wrong: type[Adam]) -> None:
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check(wrong(0.1), TRAJECTORIES[row][1])


@pytest.mark.parametrize("inside", [True, False])
def test_only_a_changing_rate_shows_where_the_rate_stands(inside: bool) -> None:
    check(SGD(0.1, 0.9, rate_in_velocity=inside), TRAJECTORIES["momentum"][1])
    wrong_row = CHANGING_TRAJECTORIES["rate outside" if inside else "rate inside"][1]
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check(SGD(0.1, 0.9, rate_in_velocity=inside), wrong_row, CHANGING)


# ---- the oracle, over many updates ----


@pytest.mark.parametrize("weight_decay", [None, 0.01])
@pytest.mark.parametrize("name", oracle.CASES)
def test_fifty_updates_as_the_oracle(name: str, weight_decay: float | None) -> None:
    """Hyper-parameters, count, slots and a rate that changes twice, all in 64 bits."""
    case = oracle.CASES[name]
    random = np.random.default_rng(0)
    expected = random.normal(size=oracle.SIZE)
    weight = tf.Variable(expected)
    scale = 10 ** random.uniform(-9, 2, oracle.SIZE)
    slots = tuple(np.zeros(oracle.SIZE) for _ in case.slots)
    optimizer = CLASSES[case.rule](0.1, weight_decay=weight_decay, **case.options)
    for count in range(1, 51):
        rate = {20: 0.003, 35: 0.05}.get(count, optimizer.learning_rate)
        optimizer.learning_rate = rate
        gradient = scale * random.normal(size=oracle.SIZE)
        optimizer.apply([tf.constant(gradient)], [weight])
        update = case(gradient, slots, rate, count)
        if weight_decay:
            update = oracle.decayed(update, expected, rate, weight_decay)
        expected, slots = expected + update.delta, update.slots
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-11, atol=1e-11, err_msg=f"update {count}")
    for found, right in zip(optimizer.slots[0], slots, strict=True):
        np.testing.assert_allclose(found.numpy(), right, rtol=1e-9)


# ---- known dynamics ----


@pytest.mark.parametrize(
    ("gradient", "hat", "algorithm_1"), [(1e-5, 0.760, 0.990), (1e-6, 0.240, 0.909), (1e-7, 0.031, 0.500)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_first_step_of_adam_shows_where_epsilon_stands(
    gradient: float, hat: float, algorithm_1: float, dtype: str
) -> None:
    for epsilon_hat, expected in ((True, hat), (False, algorithm_1)):
        weight = tf.Variable(0.0, dtype=dtype)
        Adam(0.1, epsilon_hat=epsilon_hat).apply([tf.constant(gradient, dtype)], [weight])
        assert -weight.numpy() / 0.1 == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(
    ("rate", "momentum", "error"),
    [(2 / 101, 0.0, 0.1353263), (4 / 121, (9 / 11) ** 2, 3.52372e-7)],
    ids=["gradient descent", "heavy ball"],
)
def test_best_rates_on_a_quadratic(rate: float, momentum: float, error: float) -> None:
    """Goh 2017: the largest error of three eigenvalues after 100 updates from (1, 1, 1)."""
    eigenvalues = tf.constant([1.0, 10.0, 100.0], tf.float64)
    weights = tf.Variable(tf.ones(3, tf.float64))
    optimizer = SGD(rate, momentum)
    for _ in range(100):
        optimizer.apply([eigenvalues * weights], [weights])
    assert float(tf.reduce_max(abs(weights))) == pytest.approx(error, rel=2e-6)


@pytest.mark.parametrize(("amsgrad", "end"), [(False, 0.9476146), (True, -0.9008402)], ids=["adam", "amsgrad"])
def test_amsgrad_solves_what_adam_does_not(amsgrad: bool, end: float) -> None:
    """Reddi et al. 2018: x in [-1, 1] costs 1010 x every 101st time, else -10 x. The best x is -1; Adam goes to +1."""
    x = tf.Variable(tf.zeros(1, tf.float64))
    optimizer = Adam(
        lambda updates: 0.5 / tf.sqrt(tf.cast(updates + 1, tf.float64)),
        beta_2=0.99,
        epsilon=1e-8,
        amsgrad=amsgrad,
        epsilon_hat=False,
    )

    @tf.function
    def run() -> None:
        for step in tf.range(1, 10_001):
            gradient = tf.where(step % 101 == 1, tf.constant([1010.0], tf.float64), tf.constant([-10.0], tf.float64))
            optimizer.apply([gradient], [x])
            x.assign(tf.clip_by_value(x, -1, 1))

    run()
    assert x.numpy() == pytest.approx(end, abs=1e-6)
