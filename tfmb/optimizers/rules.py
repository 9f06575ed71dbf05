"""The update rules as pure functions: (gradient, slots, rate, count) -> (delta, slots).

`gradient` is the mean gradient g of one variable, `slots` what the rule remembers of it, `rate` the learning
rate alpha, `count` the number of this update from 1 (a float64 scalar). The variable then moves by `delta`.
Hyper-parameters are Python floats: 64 bits until they meet a tensor, whose dtype they then take.

`square` is g^2 where a rule must not take the gradient's own: see `tfmb.optimizers.sparse`.

New slots go through `settle(new, old)` before anything else is made of them: there a compiler can be told to write
them first.
"""

from collections.abc import Callable
from typing import Any

from tfmb.backend import tf

__all__ = ["Settle", "Slots", "adam", "as_they_are", "momentum", "rmsprop", "sgd"]

Slots = tuple[Any, ...]
Settle = Callable[[Slots, Slots], Slots]


def as_they_are(new: Slots, old: Slots) -> Slots:
    """The new slots."""
    del old
    return new


def sgd(gradient: Any, slots: Slots, rate: Any, count: Any) -> tuple[Any, Slots]:
    """Gradient descent: theta <- theta - alpha g."""
    del count
    return -rate * gradient, slots


def momentum(
    gradient: Any,
    slots: Slots,
    rate: Any,
    count: Any,
    *,
    momentum: float,
    nesterov: bool,
    rate_in_velocity: bool,
    settle: Settle = as_they_are,
) -> tuple[Any, Slots]:
    """Momentum: v <- gamma v + g, theta <- theta - alpha v; Nesterov: theta <- theta - alpha (g + gamma v).

    `rate_in_velocity` is Keras's form, v <- gamma v - alpha g, theta <- theta + v; Nesterov: theta <- theta + gamma v -
    alpha g. The two part when the rate changes.
    """
    del count
    (v,) = slots
    if rate_in_velocity:
        step = rate * gradient
        (v,) = settle((momentum * v - step,), slots)
        return (momentum * v - step if nesterov else v), (v,)
    (v,) = settle((momentum * v + gradient,), slots)
    return -rate * (gradient + momentum * v if nesterov else v), (v,)


def rmsprop(
    gradient: Any,
    slots: Slots,
    rate: Any,
    count: Any,
    *,
    rho: float,
    momentum: float,
    epsilon: float,
    centered: bool,
    rate_in_velocity: bool,
    settle: Settle = as_they_are,
    square: Any = None,
) -> tuple[Any, Slots]:
    """RMSprop: s <- rho s + (1 - rho) g^2, theta <- theta - alpha g / sqrt(s + eps).

    `centered` subtracts the square of the running mean from s. `momentum` feeds g / sqrt(s + eps) to a velocity v, as
    in `momentum`; Keras's form (`rate_in_velocity`) is v <- gamma v + alpha g / sqrt(s + eps), theta <- theta - v.
    The slots are s, then the mean if centered, then the velocity if there is momentum.
    """
    moments, rest = slots[: 1 + centered], slots[1 + centered :]
    new: Slots = (rho * moments[0] + (1 - rho) * (tf.square(gradient) if square is None else square),)
    if centered:
        new += (rho * moments[1] + (1 - rho) * gradient,)
    new = settle(new, moments)
    s, *mean = new
    variance = s
    if centered:
        # Never negative in exact arithmetic; rounding can make it so, and the root NaN.
        variance = tf.maximum(s - tf.square(mean[0]), 0)
    # Not `/`: Grappler turns rate * (gradient / root) into a product whose order differs from device to device.
    step = tf.math.divide_no_nan(gradient, tf.sqrt(variance + epsilon))
    if not momentum:
        return -rate * step, new
    if rate_in_velocity:
        (velocity,) = settle((momentum * rest[0] + rate * step,), rest)
        return -velocity, (*new, velocity)
    (velocity,) = settle((momentum * rest[0] + step,), rest)
    return -rate * velocity, (*new, velocity)


def adam(
    gradient: Any,
    slots: Slots,
    rate: Any,
    count: Any,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    epsilon_hat: bool,
    amsgrad: bool,
    powers_of: tuple[float, float] | None = None,
    settle: Settle = as_they_are,
    square: Any = None,
) -> tuple[Any, Slots]:
    """Adam: m <- beta_1 m + (1 - beta_1) g, v <- beta_2 v + (1 - beta_2) g^2, with bias correction.

    With c1 = 1 - beta_1^t and c2 = 1 - beta_2^t, `epsilon_hat=True` is Keras's form (the one before section 2.1 of
    Kingma and Ba), theta <- theta - alpha sqrt(c2) / c1 * m / (sqrt(v) + eps); False is their Algorithm 1,
    theta <- theta - alpha (m / c1) / (sqrt(v / c2) + eps). `amsgrad` divides by the largest v so far, uncorrected
    (Reddi et al. 2018). The slots are m, v, then that largest v. `powers_of` are the betas in c1 and c2 where they are
    others, as in Keras, which rounds them there alone.
    """
    m, v, *largest = slots
    m = beta_1 * m + (1 - beta_1) * gradient
    v = beta_2 * v + (1 - beta_2) * (tf.square(gradient) if square is None else square)
    m, v = new = settle((m, v), slots[:2])
    if amsgrad:
        (v,) = settle((tf.maximum(largest[0], v),), slots[2:])
        new += (v,)
    # In float64: the float32 value of 1 - beta_2^t is off by 1.3e-5 at t = 1.
    c1, c2 = (1 - tf.pow(tf.convert_to_tensor(beta, tf.float64), count) for beta in powers_of or (beta_1, beta_2))
    root = tf.cast(tf.sqrt(c2), m.dtype)
    # The scalars first: each product with a whole tensor is a pass over memory.
    corrected_rate = rate * tf.cast(tf.sqrt(c2) / c1, m.dtype)
    return -corrected_rate * m / (tf.sqrt(v) + epsilon * (1 if epsilon_hat else root)), new
