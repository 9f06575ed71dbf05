"""The dynamic loss scale of float16 (Micikevicius et al. 2018): small gradients are lifted into its range."""

from collections.abc import Sequence
from typing import Any

from tfmb.backend import tf
from tfmb.optimizers.shared_state import build, raw_variable
from tfmb.types import Tensor

__all__ = ["LossScale"]


class LossScale:
    """A factor on the loss that halves after an overflow and doubles after many updates without one.

    Args:
        initial_scale: the first factor.
        growth_steps: updates without an overflow before it doubles.
        stands_for: a Keras `LossScaleOptimizer`, whose settings count then and whose variables it uses on one device;
            None for none.

    Attributes:
        scale: float32 variable; made by `build`.
        good_steps: int64 variable, updates since the last change; made by `build`.
    """

    def __init__(self, initial_scale: float = 2.0**15, growth_steps: int = 2000, stands_for: Any = None) -> None:
        if stands_for is not None:
            initial_scale, growth_steps = stands_for.initial_scale, stands_for.dynamic_growth_steps
        self.stands_for = stands_for
        self.initial_scale = float(initial_scale)
        self.growth_steps = int(growth_steps)
        self.scale: Any = None
        self.good_steps: Any = None

    @property
    def variables(self) -> list[Any]:
        """The factor and the count."""
        return [] if self.scale is None else [self.scale, self.good_steps]

    def build(self, variables: Sequence[Any] = ()) -> None:
        """Makes the variables, once; call it inside the strategy's scope.

        Args:
            variables: the Keras variables that are trained, to build a Keras optimizer with.
        """
        if self.scale is not None:
            return
        if self.stands_for is not None and not tf.distribute.has_strategy():
            build(self.stands_for, variables)
            self.scale, self.good_steps = self._theirs()
            return
        with tf.init_scope():
            self.scale = tf.Variable(self.initial_scale, dtype=tf.float32, trainable=False, name="loss_scale")
            self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="good_steps")

    def counterparts(self, variables: Sequence[Any]) -> list[tuple[Any, Any]]:
        """(the Keras optimizer's variable, ours) for every one that is not the same variable anyway."""
        if self.stands_for is None or self.scale is None:
            return []
        build(self.stands_for, variables)
        pairs = zip(self._theirs(), self.variables, strict=True)
        return [(theirs, ours) for theirs, ours in pairs if theirs is not ours]

    def _theirs(self) -> tuple[Any, Any]:
        return raw_variable(self.stands_for.dynamic_scale), raw_variable(self.stands_for.step_counter)

    def update(self, finite: Tensor) -> None:
        """Updates the factor after each try.

        Args:
            finite: bool scalar tensor, whether all gradients were finite.
        """
        good = tf.where(finite, self.good_steps + 1, tf.zeros_like(self.good_steps))
        grows = good >= self.growth_steps
        scale = tf.convert_to_tensor(self.scale)
        up = tf.where(grows & tf.math.is_finite(scale * 2.0), scale * 2.0, scale)
        self.scale.assign(tf.where(finite, up, tf.maximum(scale / 2.0, 1.0)))
        self.good_steps.assign(tf.where(grows, tf.zeros_like(good), good))
