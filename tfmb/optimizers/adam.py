"""Adam and AdamW."""

from typing import Any, Unpack

from tfmb.backend import tf
from tfmb.errors import ConfigError
from tfmb.optimizers.hyper_parameters import check_number
from tfmb.optimizers.optimizer import Common, Optimizer
from tfmb.types import Slots, Tensor

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), with Keras's arguments and defaults.

    m <- beta_1 m + (1 - beta_1) g, v <- beta_2 v + (1 - beta_2) g^2, both corrected for their start at zero.

    The place of epsilon matters for small gradients. `epsilon_hat=True` is Keras's "epsilon hat": epsilon is added to
    the uncorrected root. `epsilon_hat=False` is Algorithm 1 of the paper and PyTorch: epsilon is added to the corrected
    root. At |g| = 1e-6 the first step over alpha is 0.240 with True and 0.909 with False.

    Args:
        learning_rate: alpha, at least 0, or a function of the update count.
        beta_1: the decay of the first moment, in [0, 1).
        beta_2: the decay of the second moment, in [0, 1).
        epsilon: a small number that keeps the division from 0, at least 0.
        amsgrad: whether to divide by the largest second moment so far (Reddi et al. 2018).
        weight_decay: the factor of decoupled weight decay; None for none.
        epsilon_hat: whether epsilon stands where Keras has it; False puts it where Algorithm 1 has it.
        name: the optimizer's name.
        **common: clipping and averaging: see `Optimizer`.

    Raises:
        ConfigError: a hyper-parameter out of its range.

    Example:
        >>> optimizer = tfmb.optimizers.Adam(learning_rate=0.001, global_clipnorm=1.0)
        >>> history = tfmb.fit(model, x, y, optimizer=optimizer, verbose=0)
    """

    own_arguments = ("beta_1", "beta_2", "epsilon", "amsgrad", "epsilon_hat")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        *,
        epsilon_hat: bool = True,
        name: str = "adam",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, weight_decay, name=name, **common)
        self.beta_1 = check_number(beta_1, "beta_1", low=0.0, below=1.0)
        self.beta_2 = check_number(beta_2, "beta_2", low=0.0, below=1.0)
        self.epsilon = check_number(epsilon, "epsilon", low=0.0)
        self.amsgrad = bool(amsgrad)
        self.epsilon_hat = bool(epsilon_hat)
        self.slot_names = ("m", "v", *(("v_largest",) if self.amsgrad else ()))

    def moments(self, gradient: Tensor, slots: Slots, rate: Tensor, square: Tensor = None) -> Slots:
        """m <- beta_1 m + (1 - beta_1) g, v <- beta_2 v + (1 - beta_2) g^2."""
        del rate
        (m, v), beta_1, beta_2 = slots[:2], self.beta_1, self.beta_2
        m = beta_1 * m + (1 - beta_1) * gradient
        return m, beta_2 * v + (1 - beta_2) * (tf.square(gradient) if square is None else square)

    def derived(self, gradient: Tensor, moments: Slots, slots: Slots, rate: Tensor) -> Slots:
        """Returns, with `amsgrad`, the largest v so far, uncorrected."""
        del gradient, rate
        return (tf.maximum(slots[2], moments[1]),) if self.amsgrad else ()

    def step(self, gradient: Tensor, slots: Slots, rate: Tensor, count: Tensor) -> Any:
        """theta <- theta - alpha sqrt(c2) / c1 * m / (sqrt(v) + eps), with the largest v if there is one.

        c1 = 1 - beta_1^t and c2 = 1 - beta_2^t. This is Keras's form (the one before section 2.1 of Kingma and Ba).
        `epsilon_hat=False` is their Algorithm 1, theta <- theta - alpha (m / c1) / (sqrt(v / c2) + eps).
        """
        del gradient
        m, v = slots[0], slots[-1]
        betas = self._rounded(self.beta_1), self._rounded(self.beta_2)  # which Keras rounds here, and nowhere else
        # In float64: the float32 value of 1 - beta_2^t is off by 1.3e-5 at t = 1.
        c1, c2 = (1 - tf.pow(tf.convert_to_tensor(beta, tf.float64), count) for beta in betas)
        root = tf.cast(tf.sqrt(c2), m.dtype)
        # The scalars first: each product with a whole tensor is a pass over memory.
        corrected_rate = rate * tf.cast(tf.sqrt(c2) / c1, m.dtype)
        return -corrected_rate * m / (tf.sqrt(v) + self.epsilon * (1 if self.epsilon_hat else root))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): `Adam` with `weight_decay=0.004`.

    As in Keras, all weights decay, biases too. `exclude_from_weight_decay` exempts some. The arguments are those of
    `Adam`, in Keras's order.

    Raises:
        ConfigError: a hyper-parameter out of its range.

    Example:
        >>> optimizer = tfmb.optimizers.AdamW(weight_decay=0.01)
        >>> optimizer.exclude_from_weight_decay(var_names=["bias"])
        >>> history = tfmb.fit(model, x, y, optimizer=optimizer, verbose=0)
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        *,
        epsilon_hat: bool = True,
        name: str = "adamw",
        **common: Unpack[Common],
    ) -> None:
        if weight_decay is None:
            raise ConfigError(
                "Argument `weight_decay` must be a float. Received: weight_decay=None; give 0.0, or Adam, for none"
            )
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, epsilon_hat=epsilon_hat, name=name, **common
        )
