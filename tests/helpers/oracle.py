"""The update rules in float64 NumPy, written from the equations and apart from tfmb, and states to try them on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = Any
Slots = tuple[Array, ...]

COUNTS = (1, 2, 3, 10, 100, 1000, 10000)
SIZE = 256
RATE = 0.1


@dataclass(frozen=True)
class Update:
    """One update, and what its rounding errors are measured against.

    Attributes:
        delta: what the weight moves by.
        size: the step without cancellation: computed from magnitudes, so that it is a sum of positive terms.
        slots: the new slots.
        slot_sizes: the new slots without cancellation.
    """

    delta: Array
    size: Array
    slots: Slots = ()
    slot_sizes: Slots = ()


@dataclass(frozen=True)
class Case:
    """One form of a rule: the name of its function, its options, the kinds of its slots."""

    rule: str
    options: dict[str, Any] = field(default_factory=dict)
    slots: tuple[str, ...] = ()

    def __call__(self, gradient: Array, slots: Slots, rate: float, count: int) -> Update:
        return RULES[self.rule](gradient, slots, rate, count, **self.options)


def sgd(gradient: Array, slots: Slots, rate: float, count: int) -> Update:
    """The weight moves by -alpha g."""
    del slots, count
    return Update(-rate * gradient, rate * abs(gradient))


def momentum(
    gradient: Array, slots: Slots, rate: float, count: int, *, momentum: float, nesterov: bool, rate_in_velocity: bool
) -> Update:
    """The velocity becomes gamma v + g; the weight moves by -alpha times it, or -alpha (g + gamma v) with Nesterov.

    With the rate inside it is Keras's: gamma v - alpha g, by which the weight moves; with Nesterov it moves by the new
    v's gamma v - alpha g.
    """
    del count
    push, outside = (-rate * gradient, 1.0) if rate_in_velocity else (gradient, -rate)

    def move(v: Array, push: Array) -> tuple[Array, Array]:
        v = momentum * v + push
        return (push + momentum * v if nesterov else v), v

    step, v = move(slots[0], push)
    size, v_size = move(abs(slots[0]), abs(push))
    return Update(outside * step, abs(outside) * size, (v,), (v_size,))


def rmsprop(
    gradient: Array,
    slots: Slots,
    rate: float,
    count: int,
    *,
    rho: float,
    momentum: float,
    epsilon: float,
    centered: bool,
    rate_in_velocity: bool,
) -> Update:
    """The slots are the mean square, then the mean (centered), then the velocity (momentum); epsilon in the root.

    The velocity is what the weight moves against, whether the rate is inside it or not.
    """
    s = rho * slots[0] + (1 - rho) * gradient**2
    new: Slots = (s,)
    sizes: Slots = (s,)
    variance = s
    if centered:
        mean = rho * slots[1] + (1 - rho) * gradient
        variance = s - mean**2
        new, sizes = (s, mean), (s, rho * abs(slots[1]) + (1 - rho) * abs(gradient))
    step = gradient / np.sqrt(variance + epsilon)
    if not momentum:
        return Update(-rate * step, rate * abs(step), new, sizes)
    inside, outside = (rate, 1.0) if rate_in_velocity else (1.0, rate)
    v = momentum * slots[-1] + inside * step
    v_size = momentum * abs(slots[-1]) + inside * abs(step)
    return Update(-outside * v, outside * v_size, (*new, v), (*sizes, v_size))


def adam(
    gradient: Array,
    slots: Slots,
    rate: float,
    count: int,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    epsilon_hat: bool,
    amsgrad: bool,
) -> Update:
    """Keras's form of epsilon (`epsilon_hat`) or Algorithm 1's; amsgrad keeps the largest uncorrected v."""
    m = beta_1 * slots[0] + (1 - beta_1) * gradient
    m_size = beta_1 * abs(slots[0]) + (1 - beta_1) * abs(gradient)
    v = beta_2 * slots[1] + (1 - beta_2) * gradient**2
    new: Slots = (v,)
    if amsgrad:
        v = np.maximum(slots[2], v)
        new += (v,)
    c1, c2 = -np.expm1(count * np.log(beta_1)), -np.expm1(count * np.log(beta_2))
    below = (np.sqrt(v) + epsilon) / np.sqrt(c2) if epsilon_hat else np.sqrt(v / c2) + epsilon
    return Update(-rate * m / c1 / below, rate * m_size / c1 / below, (m, *new), (m_size, *new))


def decayed(update: Update, weight: Array, rate: float, weight_decay: float) -> Update:
    """The same update with decoupled weight decay: the weight also moves by -alpha weight_decay weight."""
    decay = rate * weight_decay * weight
    return Update(update.delta - decay, update.size + abs(decay), update.slots, update.slot_sizes)


RULES: dict[str, Callable[..., Update]] = {"sgd": sgd, "momentum": momentum, "rmsprop": rmsprop, "adam": adam}


def _momentum(nesterov: bool, inside: bool) -> Case:
    options = {"momentum": 0.9, "nesterov": nesterov, "rate_in_velocity": inside}
    return Case("momentum", options, ("velocity inside" if inside else "velocity",))


def _rmsprop(*slots: str, centered: bool = False, momentum: float = 0.0, inside: bool = False) -> Case:
    options = {"rho": 0.9, "momentum": momentum, "epsilon": 1e-7, "centered": centered, "rate_in_velocity": inside}
    return Case("rmsprop", options, ("second", *slots))


def _adam(hat: bool, amsgrad: bool, beta_2: float = 0.999) -> Case:
    options = {"beta_1": 0.9, "beta_2": beta_2, "epsilon": 1e-7, "epsilon_hat": hat, "amsgrad": amsgrad}
    return Case("adam", options, ("first", "second", *(("largest second",) if amsgrad else ())))


CASES = {
    "sgd": Case("sgd"),
    "momentum": _momentum(nesterov=False, inside=False),
    "nesterov": _momentum(nesterov=True, inside=False),
    "momentum_rate_inside": _momentum(nesterov=False, inside=True),
    "nesterov_rate_inside": _momentum(nesterov=True, inside=True),
    "rmsprop": _rmsprop(),
    "rmsprop_centered": _rmsprop("mean", centered=True),
    "rmsprop_momentum": _rmsprop("scaled velocity", momentum=0.9),
    "rmsprop_momentum_rate_inside": _rmsprop("scaled velocity inside", momentum=0.9, inside=True),
    "rmsprop_centered_momentum": _rmsprop("mean", "scaled velocity", centered=True, momentum=0.9),
    "adam": _adam(hat=True, amsgrad=False),
    "adam_slow": _adam(hat=True, amsgrad=False, beta_2=0.9999),
    "adam_algorithm_1": _adam(hat=False, amsgrad=False),
    "amsgrad": _adam(hat=True, amsgrad=True),
    "amsgrad_algorithm_1": _adam(hat=False, amsgrad=True),
}


def arbitrary_state(case: Case, count: int, seed: int) -> tuple[Array, Slots]:
    """A gradient and slots such as update `count` could meet, `SIZE` coordinates of scales from 1e-9 to 1e2.

    Each coordinate's gradient and slots are of its one scale, so that small scales show epsilon's place.
    The square of a mean stays below its mean square: the centered variance is then well conditioned.
    """
    random = np.random.default_rng([seed, count])
    scale = 10 ** random.uniform(-9, 2, SIZE)
    gradient = scale * random.normal(size=SIZE)
    slots: Slots = ()
    for kind in case.slots:
        if kind.endswith("second"):
            slots += (scale**2 * random.uniform(size=SIZE),)
        elif kind == "mean":  # of the mean square before it
            slots += (np.sqrt(slots[-1]) * random.uniform(-0.9, 0.9, SIZE),)
        else:
            size = scale / np.sqrt(scale**2 + 1e-7) if kind.startswith("scaled") else scale
            slots += (random.normal(size=SIZE) * size * (RATE if kind.endswith("inside") else 1.0),)
    return gradient, slots
