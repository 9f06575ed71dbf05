"""The loss of a batch as sums: numerators and denominators that add up over the parts of the batch.

Keras's loss of an output is a mean, num / den, where den counts elements (or, by the loss's `reduction`, sums
weights, or is 1). Both add up over parts, so the loss of the whole batch comes out exactly, however it is cut.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.types import Data, DType, Tensor

__all__ = ["LossSums", "LossTerms"]

_MEAN = ("sum_over_batch_size", "mean")
# Losses that Keras computes over all elements at once.
_OF_THE_WHOLE = (keras.losses.Dice, keras.losses.Tversky)


@dataclass(frozen=True, kw_only=True)
class LossSums:
    """The loss of one part of a batch.

    Attributes:
        objectives: scalars; the gradient of each, summed over parts and divided by the sum of its count, adds up to
            the batch's. One in most models: only an output that is divided by a mask or by weights has its own.
        counts: `[objectives]`, the divisors of the objectives in the end.
        numerators: `[losses]`, the unweighted loss sum of each output that has a loss.
        denominators: `[losses]`, the divisors of those.
    """

    objectives: list[Any]
    counts: Any
    numerators: Any
    denominators: Any


class LossTerms:
    """The losses of a model's outputs: Keras's own objects, of a compiled model.

    Attributes:
        losses: each loss with the number of its output, known once it was resolved.
        weights: the weight of each.
    """

    def __init__(self) -> None:
        self.losses: list[tuple[Any, int]] = []
        self.weights: list[float] = []

    def sums(
        self,
        names: list[str],
        y: list[Any],
        y_pred: list[Any],
        weight: list[Any],
        added: Any,
        rows: Tensor,
        size: Tensor,
        partition: bool,
        present: Tensor = None,
    ) -> LossSums:
        """The loss sums of one part.

        Args:
            names: the outputs' names.
            y: each output's targets `[rows, ...]`, or None.
            y_pred: each output `[rows, ...]`.
            weight: each output's sample weights, or None.
            added: scalar, the mean over the part's rows of what layers added to the loss; None for nothing.
            rows: scalar, the part's number of rows.
            size: scalar, the whole batch's.
            partition: whether the batch has more than one part.
            present: bools `[rows]`, False for rows that only fill up the part and count for nothing; None for none.

        Returns:
            `LossSums`.

        Raises:
            ConfigError: a loss that does not fit the outputs, or one of a cut batch that is no mean or sum over rows.
        """
        for _, i in self.losses:
            if y[i] is None:
                raise ConfigError(f"the output {names[i]!r} has a loss but no targets: give y for it")
        if partition and (whole := [loss.name for loss, _ in self.losses if isinstance(loss, _OF_THE_WHOLE)]):
            raise ConfigError(
                f"the loss {whole[0]} is a ratio over the whole batch, which cannot be summed over parts: "
                "use one replica and no micro-batches"
            )
        parts = [_loss_sums(loss, y[i], y_pred[i], weight[i], rows, size, present) for loss, i in self.losses]
        # An output's mean is over a fixed number of elements a row: these have one objective, divided by the rows.
        by_rows = [self.weights[k] * part.by_rows for k, part in enumerate(parts) if part.by_rows is not None]
        if added is not None:
            by_rows.append(tf.where(rows > 0, added, tf.zeros_like(added)) * rows)
        own = [(self.weights[k] * part.total, part.count) for k, part in enumerate(parts) if part.by_rows is None]
        if not parts and added is None:
            raise ConfigError("no output has a loss: compile the model with one, or give loss=...")
        pairs = [(tf.add_n([tf.cast(term, rows.dtype) for term in by_rows]), rows)] if by_rows else []
        pairs += [(tf.cast(total, rows.dtype), tf.cast(count, rows.dtype)) for total, count in own]
        return LossSums(
            objectives=[loss_terms for loss_terms, _ in pairs],
            counts=tf.stack([count for _, count in pairs]),
            numerators=_stack([part.total for part in parts], rows.dtype),
            denominators=_stack([part.count for part in parts], rows.dtype),
        )

    def sums_of(
        self, number: int, y: Data, y_pred: Tensor, weight: Tensor, rows: Tensor, size: Tensor
    ) -> list[tuple[Any, Any]]:
        """Returns [(sum, its divisor)] of one loss over one part: first as reported, then as differentiated."""
        found = _loss_sums(self.losses[number][0], y, y_pred, weight, rows, size, None)
        reported = (found.total, tf.cast(found.count, found.total.dtype))
        return [reported, reported if found.by_rows is None else (found.by_rows, tf.cast(rows, found.total.dtype))]

    def stand_for_own_loss(self) -> None:
        """Stands for a model's own `compute_loss`: one loss, of weight 1."""
        self.losses, self.weights = [], [1.0]

    def mean(self, numerators: Any, denominators: Any) -> Any:
        """The batch's loss from the sums over all its parts: the weighted sum of the outputs' means."""
        means = tf.math.divide_no_nan(numerators, denominators)
        return tf.reduce_sum(tf.constant(self.weights, means.dtype) * means)

    def resolve(self, compile_loss: Any, names: list[str]) -> None:
        """Takes the losses of Keras's `CompileLoss`, which has seen outputs of these names; None for no loss.

        Raises:
            ConfigError: a loss that gives a batch no single number, or several losses of one output.
        """
        found = [] if compile_loss is None else compile_loss._flat_losses
        self.losses = [(each.loss, _output(each.path, names)) for each in found]
        self.weights = [1.0 if each.loss_weights is None else float(each.loss_weights) for each in found]
        for loss, _ in self.losses:
            if loss.reduction in (None, "none"):
                raise ConfigError(
                    f"the loss {loss.name} has reduction=None, so a batch has no single loss: leave reduction=None out"
                )
        outputs = [output for _, output in self.losses]
        if len(set(outputs)) != len(outputs):
            raise ConfigError(
                "an output has several losses, and tfmb cannot cut their batch: add them up in one function"
            )


def _output(path: tuple[Any, ...], names: list[str]) -> int:
    """The number of the output that Keras's path to a loss leads to."""
    if not path:
        return 0
    if len(path) > 1:
        raise ConfigError("the model's outputs are nested: return a tensor, or one list or dict of tensors")
    return path[0] if isinstance(path[0], int) else names.index(path[0])


@contextlib.contextmanager
def _unreduced(loss: Any) -> Iterator[str]:
    """Lets a Keras loss give its weighted and masked elements, which we sum ourselves; gives its reduction."""
    reduction = loss.reduction
    loss.reduction = None
    try:
        yield reduction
    finally:
        loss.reduction = reduction


def _stack(values: list[Any], dtype: DType) -> Any:
    return tf.stack([tf.cast(value, dtype) for value in values]) if values else tf.zeros([0], dtype)


class _Sums(NamedTuple):
    """One output's loss over one part: its sum, its divisor, and the sum as if divided by the rows.

    `by_rows` is None if the number of elements a row is not the same for every row, as under a mask.
    """

    total: Any
    count: Any
    by_rows: Any


def _loss_sums(
    loss: Any, y: Data, y_pred: Tensor, weight: Tensor, rows: Tensor, size: Tensor, present: Tensor
) -> _Sums:
    mask = getattr(y_pred, "_keras_mask", None)
    with _unreduced(loss) as reduction:
        values = loss(y, y_pred, weight)
    rows, size = tf.cast(rows, values.dtype), tf.cast(size, values.dtype)
    if present is not None:
        if values.shape.rank == 0:
            raise ConfigError(
                f"the loss {loss.name} returns one number for a batch, so the rows that fill up the batch cannot be "
                "left out: return one number per example, or set pad_batches=False"
            )
        values = _keep(present, values)
        mask = None if mask is None else tf.logical_and(tf.cast(mask, tf.bool), _like(present, mask))
        weight = None if weight is None else _keep(present, tf.convert_to_tensor(weight))
    if values.shape.rank == 0:
        # A user's loss that returns its own mean: it counts for each row.
        total = tf.where(rows > 0, values, tf.zeros_like(values)) * rows
        return _Sums(total, rows, total)
    total = tf.reduce_sum(values)
    elements = tf.cast(tf.size(values), values.dtype) if present is None else rows * _elements_a_row(values)
    if reduction == "sum":
        return _Sums(total, rows / size, total * size)
    if reduction in _MEAN:
        if mask is None:
            return _Sums(total, elements, total / _elements_a_row(values))
        mask = tf.cast(mask, values.dtype)
        of = tf.cast(tf.size(mask), values.dtype) if present is None else rows * _elements_a_row(mask)
        return _Sums(total, tf.math.divide_no_nan(elements * tf.reduce_sum(mask), of), None)
    if mask is not None:
        kept = tf.cast(mask, values.dtype)
        weight = kept if weight is None else tf.cast(_same_rank(weight, kept)[0], values.dtype) * kept
    if weight is None:
        return _Sums(total, elements, total / _elements_a_row(values))
    return _Sums(total, tf.reduce_sum(tf.cast(weight, values.dtype)), None)


def _elements_a_row(values: Any) -> Any:
    if values.shape[1:].is_fully_defined():
        return float(values.shape[1:].num_elements())
    return tf.cast(tf.reduce_prod(tf.shape(values)[1:]), values.dtype)


def _like(present: Tensor, values: Any) -> Any:
    """`present` `[rows]` with axes of size 1 up to the rank of `values`."""
    return tf.reshape(present, [-1] + [1] * (len(values.shape) - 1))


def _keep(present: Tensor, values: Any) -> Any:
    """The values, and 0 in rows that are not there."""
    return tf.where(_like(present, values), values, tf.zeros_like(values))


def _same_rank(y_true: Any, y_pred: Tensor) -> tuple[Any, Any]:
    """Adds or drops a last axis of size 1 where the ranks differ by one, as Keras's losses do."""
    true_rank, pred_rank = len(y_true.shape), len(y_pred.shape)
    if true_rank == pred_rank + 1 and y_true.shape[-1] == 1:
        return (y_true, y_pred[..., tf.newaxis]) if pred_rank == 1 else (tf.squeeze(y_true, -1), y_pred)
    if pred_rank == true_rank + 1 and y_pred.shape[-1] == 1:
        return (y_true[..., tf.newaxis], y_pred) if true_rank == 1 else (y_true, tf.squeeze(y_pred, -1))
    return y_true, y_pred
