"""SGD, with momentum or without."""

from typing import Any, Unpack

from tfmb.errors import ConfigError
from tfmb.optimizers.optimizer import Common, Optimizer
from tfmb.types import Slots, Tensor

__all__ = ["SGD", "Momentum"]


class SGD(Optimizer):
    """Gradient descent on mini-batches, with Keras's arguments and defaults.

    theta <- theta - alpha g; with momentum gamma, v <- gamma v + g and theta <- theta - alpha v, or with
    `nesterov`, theta <- theta - alpha (g + gamma v) (Sutskever et al. 2013).

    It differs from Keras in one point: the rate stays outside the velocity v, as in PyTorch, so a new rate holds at
    once. Keras keeps the rate inside (v <- gamma v + alpha g, theta <- theta - v), where old steps keep their old
    rate. `rate_in_velocity=True` gives Keras's form. At a constant rate the two forms are the same.

    Args:
        learning_rate: alpha, at least 0, or a function of the update count.
        momentum: gamma in [0, 1]; 0 keeps no velocity.
        nesterov: whether to use Nesterov's momentum, which looks ahead.
        weight_decay: the factor of decoupled weight decay; None for none.
        rate_in_velocity: whether to use Keras's form of momentum.
        name: the optimizer's name.
        **common: clipping and averaging: see `Optimizer`.

    Raises:
        ConfigError: a hyper-parameter out of its range.

    Example:
        >>> weight = tf.Variable([1.0])
        >>> optimizer = tfmb.optimizers.SGD(learning_rate=0.1, momentum=0.9)
        >>> for gradient in (0.5, -0.3):
        ...     optimizer.apply([tf.constant([gradient])], [weight])
        >>> weight.numpy()
        array([0.935], dtype=float32)
    """

    own_arguments = ("momentum", "nesterov", "rate_in_velocity")

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        *,
        rate_in_velocity: bool = False,
        name: str = "sgd",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, weight_decay, name=name, **common)
        if not isinstance(momentum, (float, int)) or not 0 <= momentum <= 1:
            raise ConfigError(f"momentum={momentum!r} is refused: `momentum` must be a float between [0, 1].")
        self.momentum = float(momentum)
        self.nesterov = bool(nesterov)
        self.rate_in_velocity = bool(rate_in_velocity)
        self.slot_names = ("velocity",) if self.momentum else ()

    def moments(self, gradient: Tensor, slots: Slots, rate: Tensor, square: Tensor = None) -> Slots:
        """The new velocity, if there is momentum: v <- gamma v + g; in Keras's form v <- gamma v - alpha g."""
        del square
        if not self.momentum:
            return ()
        (v,), gamma = slots, self._rounded(self.momentum)
        return (gamma * v - rate * gradient if self.rate_in_velocity else gamma * v + gradient,)

    def step(self, gradient: Tensor, slots: Slots, rate: Tensor, count: Tensor) -> Any:
        """theta <- theta - alpha g; with momentum theta <- theta - alpha v; Nesterov: theta - alpha (g + gamma v).

        In Keras's form theta <- theta + v; Nesterov: theta <- theta + gamma v - alpha g.
        """
        del count
        if not self.momentum:
            return -rate * gradient
        (v,), gamma = slots, self._rounded(self.momentum)
        if self.rate_in_velocity:
            return gamma * v - rate * gradient if self.nesterov else v
        return -rate * (gradient + gamma * v if self.nesterov else v)


Momentum = SGD
