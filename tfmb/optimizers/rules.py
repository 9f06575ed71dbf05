"""The update rules as pure functions, each in two halves: moments, then the step that is made of them.

`*_moments` takes the mean gradient g of one variable and what the rule remembers of it (`slots`), and returns the new
slots; those that are made of other new ones, `*_derived` returns. `*_step` takes the gradient and all new slots, and
returns the `delta` that the variable moves by. Between them a compiler can be told to write the slots first: see
`one_pass`. `Optimizer.rule` puts the halves together.

`rate` is the learning rate alpha, `count` the number of this update from 1 (a float64 scalar). Hyper-parameters are
Python floats: 64 bits until they meet a tensor, whose dtype they then take. `square` is g^2, where a rule must not take
that of the gradient: see `sparse`.
"""

from typing import Any

from tfmb.backend import tf
from tfmb.types import Tensor

__all__ = [
    "Slots",
    "adam_derived",
    "adam_moments",
    "adam_step",
    "momentum_moments",
    "momentum_step",
    "rmsprop_derived",
    "rmsprop_moments",
    "rmsprop_step",
    "sgd_step",
]

Slots = tuple[Any, ...]


def sgd_step(gradient: Tensor, rate: Tensor) -> Any:
    """Gradient descent, theta <- theta - alpha g: returns - alpha g."""
    return -rate * gradient


def momentum_moments(gradient: Tensor, slots: Slots, rate: Tensor, *, momentum: float, rate_in_velocity: bool) -> Slots:
    """Momentum's new velocity: v <- gamma v + g.

    `rate_in_velocity` is Keras's form, v <- gamma v - alpha g. The two part when the rate changes.
    """
    (v,) = slots
    return (momentum * v - rate * gradient if rate_in_velocity else momentum * v + gradient,)


def momentum_step(
    gradient: Tensor, slots: Slots, rate: Tensor, *, momentum: float, nesterov: bool, rate_in_velocity: bool
) -> Any:
    """theta <- theta - alpha v; Nesterov: theta <- theta - alpha (g + gamma v).

    With the rate in the velocity theta <- theta + v; Nesterov: theta <- theta + gamma v - alpha g.
    """
    (v,) = slots
    if rate_in_velocity:
        return momentum * v - rate * gradient if nesterov else v
    return -rate * (gradient + momentum * v if nesterov else v)


def rmsprop_moments(gradient: Tensor, slots: Slots, *, rho: float, centered: bool, square: Tensor = None) -> Slots:
    """RMSprop's mean square, s <- rho s + (1 - rho) g^2, and the mean of the gradients if it is centered.

    The slots are s, then that mean if centered, then the velocity if there is momentum.
    """
    new: Slots = (rho * slots[0] + (1 - rho) * (tf.square(gradient) if square is None else square),)
    return (*new, rho * slots[1] + (1 - rho) * gradient) if centered else new


def rmsprop_derived(
    gradient: Tensor,
    moments: Slots,
    slots: Slots,
    rate: Tensor,
    *,
    momentum: float,
    epsilon: float,
    centered: bool,
    rate_in_velocity: bool,
) -> Slots:
    """The new velocity, if there is momentum: v <- gamma v + g / sqrt(s + eps).

    Keras's form (`rate_in_velocity`) is v <- gamma v + alpha g / sqrt(s + eps).
    """
    if not momentum:
        return ()
    step = _normalised(gradient, moments, epsilon, centered)
    return (momentum * slots[-1] + (rate * step if rate_in_velocity else step),)


def rmsprop_step(
    gradient: Tensor,
    slots: Slots,
    rate: Tensor,
    *,
    momentum: float,
    epsilon: float,
    centered: bool,
    rate_in_velocity: bool,
) -> Any:
    """theta <- theta - alpha g / sqrt(s + eps); with momentum theta <- theta - alpha v, in Keras's form theta - v.

    `centered` subtracts the square of the running mean from s.
    """
    if not momentum:
        return -rate * _normalised(gradient, slots, epsilon, centered)
    return -slots[-1] if rate_in_velocity else -rate * slots[-1]


def _normalised(gradient: Tensor, slots: Slots, epsilon: float, centered: bool) -> Any:
    """g / sqrt(s + eps), of the centered s where it is."""
    variance = slots[0]
    if centered:
        # Never negative in exact arithmetic; rounding can make it so, and the root NaN.
        variance = tf.maximum(variance - tf.square(slots[1]), 0)
    # Not `/`: Grappler turns rate * (gradient / root) into a product whose order differs from device to device.
    return tf.math.divide_no_nan(gradient, tf.sqrt(variance + epsilon))


def adam_moments(gradient: Tensor, slots: Slots, *, beta_1: float, beta_2: float, square: Tensor = None) -> Slots:
    """Adam's new moments: m <- beta_1 m + (1 - beta_1) g, v <- beta_2 v + (1 - beta_2) g^2.

    The slots are m, v, then the largest v with `amsgrad`.
    """
    m, v = slots[:2]
    m = beta_1 * m + (1 - beta_1) * gradient
    return m, beta_2 * v + (1 - beta_2) * (tf.square(gradient) if square is None else square)


def adam_derived(moments: Slots, slots: Slots, *, amsgrad: bool) -> Slots:
    """Returns, with `amsgrad`, the largest v so far, uncorrected (Reddi et al. 2018)."""
    return (tf.maximum(slots[2], moments[1]),) if amsgrad else ()


def adam_step(
    slots: Slots, rate: Tensor, count: Tensor, *, betas: tuple[float, float], epsilon: float, epsilon_hat: bool
) -> Any:
    """theta <- theta - alpha sqrt(c2) / c1 * m / (sqrt(v) + eps), with the largest v if there is one.

    With c1 = 1 - beta_1^t and c2 = 1 - beta_2^t this is Keras's form (the one before section 2.1 of Kingma and Ba).
    `epsilon_hat=False` is their Algorithm 1, theta <- theta - alpha (m / c1) / (sqrt(v / c2) + eps).

    Args:
        slots: the new ones.
        rate: alpha.
        count: t.
        betas: those in c1 and c2. Keras rounds them there, and nowhere else.
        epsilon: eps.
        epsilon_hat: whether eps is added to the uncorrected root.
    """
    m, v = slots[0], slots[-1]
    # In float64: the float32 value of 1 - beta_2^t is off by 1.3e-5 at t = 1.
    c1, c2 = (1 - tf.pow(tf.convert_to_tensor(beta, tf.float64), count) for beta in betas)
    root = tf.cast(tf.sqrt(c2), m.dtype)
    # The scalars first: each product with a whole tensor is a pass over memory.
    corrected_rate = rate * tf.cast(tf.sqrt(c2) / c1, m.dtype)
    return -corrected_rate * m / (tf.sqrt(v) + epsilon * (1 if epsilon_hat else root))
