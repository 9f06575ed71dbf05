"""The common part of all updates: an update is made if all is finite, else nothing moves."""

import warnings
from collections.abc import Sequence
from typing import Any

from tfmb.backend import keras, tf
from tfmb.choices import JitScope
from tfmb.errors import ConfigError
from tfmb.optimizers import Optimizer
from tfmb.optimizers.loss_scale import LossScale
from tfmb.optimizers.sparse import values_of
from tfmb.training.input.elements import data_of
from tfmb.types import Batch, DType, KerasModel, Tensor

__all__ = [
    "Update",
    "absent",
    "check_targets",
    "first_entries",
    "report_dtype",
    "square_of",
]

# Up to so many entries squaring and adding is twice as fast as `l2_loss`, which is the faster one beyond the caches.
_SMALL = 2**18


class Update:
    """Makes an update if loss and gradients are finite.

    Args:
        optimizer: built for the model's trainable variables; None if the model is only scored.
        loss_scale: built; None if the loss is not scaled to keep float16 gradients in range.
        compiled: the part of the work that XLA compiles.

    Attributes:
        width: the number of entries of a report: see `report`.
        selects: whether XLA compiles the whole step: old or new is then chosen value by value, without a branch.
        unseen: the things a step uses whose state no checkpoint has, in words.
        keeps_rows: whether the step sees batches of a known size as such, as in Keras: a user's code may need it.
        lets_diverge: whether non-finite batches are trained on, as in Keras; a loss scale still leaves them out.
    """

    width: int
    unseen: Sequence[str] = ()
    lets_diverge = False
    keeps_rows = False

    def __init__(self, optimizer: Optimizer | None, loss_scale: LossScale | None, compiled: JitScope) -> None:
        self.optimizer, self.loss_scale = optimizer, loss_scale
        self.selects = compiled in (JitScope.STEP, JitScope.CALL)
        self._apply: Any = None if optimizer is None else optimizer.apply
        if compiled is JitScope.UPDATE:
            self._apply = tf.function(self._apply, jit_compile=True, autograph=False)

    def take_up(self, sums: tuple[float, ...] | None) -> tuple[float, ...] | None:
        """The sum of an epoch's reports so far, from a run whose batches may have been cut otherwise."""
        if sums is None or len(sums) == self.width:
            return sums
        warnings.warn(
            "the run was made with batches cut otherwise: the metrics of this epoch are those of its remaining batches",
            stacklevel=4,
        )
        return self.begun_anew(sums)

    def begun_anew(self, sums: tuple[float, ...]) -> tuple[float, ...]:
        """A sum of reports of another width, as far as it holds for this one's reports."""
        raise NotImplementedError(f"{type(self).__name__} must define begun_anew()")

    def apply_if(self, finite: Tensor, means: list[Any]) -> Any:
        """Makes the update, or leaves all unchanged; returns whether gradients were clipped."""
        if not means:  # a model without trainable weights
            return tf.constant(False)
        if not self.selects:
            return tf.cond(finite, lambda: self._apply(means), lambda: tf.constant(False))
        assert self.optimizer is not None
        return self.optimizer.apply(means, made=finite)

    def all_finite(self, gradients: list[Any], square: Tensor) -> Any:
        """Whether every entry is finite: True if the sum of squares is, else by a second look."""

        def look() -> Any:
            return tf.reduce_all([tf.reduce_all(tf.math.is_finite(values_of(gradient))) for gradient in gradients])

        if not gradients:
            return tf.constant(True)
        if self.selects:
            return tf.reduce_all(
                [tf.reduce_all(tf.math.is_finite(_row_sums(values_of(gradient)))) for gradient in gradients]
            )
        return tf.cond(tf.math.is_finite(square), lambda: tf.constant(True), look)

    def verdict(self, loss: Tensor, gradients: list[Any], square: Tensor, holds: Tensor) -> tuple[Any, Any]:
        """Returns (whether the loss is finite, whether all is) of a batch; both are False if `holds` is."""
        loss_finite = holds if self.lets_diverge else tf.logical_and(tf.math.is_finite(loss), holds)
        if self.lets_diverge and self.loss_scale is None:
            return loss_finite, loss_finite
        return loss_finite, tf.logical_and(loss_finite, self.all_finite(gradients, square))

    def scale(self) -> Any:
        """The factor on the loss, a scalar; `()` for none."""
        if self.loss_scale is not None:
            return tf.identity(self.loss_scale.scale)
        factor = getattr(self.optimizer, "loss_scale_factor", None)
        return () if factor is None else tf.constant(factor, tf.float32)

    def bring_on(self, loss_finite: Tensor, finite: Tensor) -> Any:
        """Brings the loss scale on; returns whether the batch's moves besides the weights stay.

        Where only the gradients overflowed at the loss scale of the time, all but the update is what Keras makes of it.
        """
        if self.loss_scale is None:
            return finite
        self.loss_scale.update(finite)
        return loss_finite

    def goes_on(self, loss_finite: Tensor, finite: Tensor) -> Any:
        """Whether to draw on: an overflow ends the run, unless a smaller loss scale may mend it."""
        if self.loss_scale is None:
            return finite
        if self.lets_diverge:
            return loss_finite
        # Read after the scale was updated: at 1 there is nothing left to take from it.
        return tf.logical_and(loss_finite, tf.logical_or(finite, self.loss_scale.scale > 1.0))


def check_targets(model: KerasModel, batch: Batch, name: str = "x") -> None:
    """Raises a `ConfigError` where Keras's loss has no targets to compare the outputs with."""
    own = type(model).compute_loss is not keras.Model.compute_loss
    if data_of(batch)[1] is None and model._compile_loss is not None and not own:
        missing = "y is missing: give the targets of x" if name == "x" else f"{name} has no targets: give (x, y)"
        raise ConfigError(f"{missing}, or compile the model without a loss if it adds its own (add_loss)")


def absent(value: Any) -> bool:
    """Whether the empty tuple stands for nothing, where a structure of tensors has no place for None."""
    return isinstance(value, tuple) and not value


def first_entries(gradients: list[Any]) -> Any:
    """The sum of the first entry of every gradient, a scalar that no one of them can be left out of."""
    return tf.add_n([tf.cast(tf.reshape(values_of(g), [-1])[0], tf.float32) for g in gradients if g is not None])


def report_dtype(variables: list[Any]) -> Any:
    """Returns the dtype of reports and of sums that travel between replicas: the widest of the weights'."""
    return tf.float64 if any(v.dtype == tf.float64 for v in variables) else tf.float32


def square_of(tensors: list[Any], dtype: DType) -> Any:
    """The sum of the squares of all entries, a scalar."""
    return tf.add_n([tf.cast(_square_of(values_of(tensor)), dtype) for tensor in tensors])


def _square_of(tensor: Tensor) -> Any:
    size = tensor.shape.num_elements()
    if size is not None and size <= _SMALL:
        return tf.reduce_sum(tf.square(tensor))
    return 2.0 * tf.nn.l2_loss(tensor)  # makes no second tensor


def _row_sums(tensor: Tensor) -> Any:
    """Sums that are finite where all entries are: scaled, so that none overflows. One fast pass in XLA."""
    columns = tensor.shape[-1] if tensor.shape.rank else 1
    return tf.linalg.matvec(tf.reshape(tensor, [-1, columns]), tf.fill([columns], tf.cast(2.0**-30, tensor.dtype)))
