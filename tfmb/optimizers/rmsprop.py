"""RMSprop."""

from typing import Any, Unpack

from tfmb.backend import tf
from tfmb.optimizers.hyper_parameters import check_number
from tfmb.optimizers.optimizer import Common, Optimizer
from tfmb.types import Slots, Tensor

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012), with Keras's arguments and defaults.

    s <- rho s + (1 - rho) g^2, theta <- theta - alpha g / sqrt(s + eps). Epsilon stands inside the root, as in Keras
    and unlike PyTorch. With `momentum`, v <- gamma v + g / sqrt(s + eps), theta <- theta - alpha v. Keras keeps the
    rate inside v (`rate_in_velocity=True`). The two forms differ when the rate changes.

    Args:
        learning_rate: alpha, at least 0, or a function of the update count.
        rho: the decay of the running mean square, in [0, 1).
        momentum: gamma in [0, 1]; 0 keeps no velocity.
        epsilon: added to the mean square, at least 0.
        centered: whether to divide by the running standard deviation (Graves 2013) and not by the root mean square.
        weight_decay: the factor of decoupled weight decay; None for none.
        rate_in_velocity: whether to use Keras's form of momentum.
        name: the optimizer's name.
        **common: clipping and averaging: see `Optimizer`.

    Raises:
        ConfigError: a hyper-parameter out of its range.

    Example:
        >>> weight = tf.Variable([1.0])
        >>> optimizer = tfmb.optimizers.RMSprop(learning_rate=0.1)
        >>> optimizer.apply([tf.constant([0.5])], [weight])
        >>> weight.numpy()
        array([0.683...], dtype=float32)
    """

    own_arguments = ("rho", "momentum", "epsilon", "centered", "rate_in_velocity")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        *,
        rate_in_velocity: bool = False,
        name: str = "rmsprop",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, weight_decay, name=name, **common)
        self.rho = check_number(rho, "rho", low=0.0, below=1.0)
        self.momentum = check_number(momentum, "momentum", low=0.0, high=1.0)
        self.epsilon = check_number(epsilon, "epsilon", low=0.0)
        self.centered = bool(centered)
        self.rate_in_velocity = bool(rate_in_velocity)
        self.slot_names = (
            "mean_square",
            *(("mean_gradient",) if self.centered else ()),
            *(("velocity",) if self.momentum else ()),
        )

    def moments(self, gradient: Tensor, slots: Slots, rate: Tensor, square: Tensor = None) -> Slots:
        """s <- rho s + (1 - rho) g^2; if it is centered, the mean of the gradients too."""
        del rate
        rho = self.rho
        new: Slots = (rho * slots[0] + (1 - rho) * (tf.square(gradient) if square is None else square),)
        return (*new, rho * slots[1] + (1 - rho) * gradient) if self.centered else new

    def derived(self, gradient: Tensor, moments: Slots, slots: Slots, rate: Tensor) -> Slots:
        """The new velocity, if there is momentum: v <- gamma v + g / sqrt(s + eps); in Keras's form alpha is in it."""
        if not self.momentum:
            return ()
        step = self._normalised(gradient, moments)
        return (self.momentum * slots[-1] + (rate * step if self.rate_in_velocity else step),)

    def step(self, gradient: Tensor, slots: Slots, rate: Tensor, count: Tensor) -> Any:
        """theta <- theta - alpha g / sqrt(s + eps); with momentum theta - alpha v, in Keras's form theta - v."""
        del count
        if not self.momentum:
            return -rate * self._normalised(gradient, slots)
        return -slots[-1] if self.rate_in_velocity else -rate * slots[-1]

    def _normalised(self, gradient: Tensor, slots: Slots) -> Any:
        """g / sqrt(s + eps), of the centered s where it is."""
        variance = slots[0]
        if self.centered:
            # Never negative in exact arithmetic; rounding can make it so, and the root NaN.
            variance = tf.maximum(variance - tf.square(slots[1]), 0)
        # Not `/`: Grappler turns rate * (gradient / root) into a product whose order differs from device to device.
        return tf.math.divide_no_nan(gradient, tf.sqrt(variance + self.epsilon))
