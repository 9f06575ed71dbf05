"""The loss of a batch as sums: numerators and denominators that add up over the parts of the batch.

Keras's loss of an output is a mean, num / den, where den counts elements (or, by the loss's `reduction`, sums
weights, or is 1). Both add up over parts, so the loss of the whole batch comes out exactly, however it is cut.
"""

import copy
from dataclasses import dataclass
from typing import Any

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.training.outputs import per_output

__all__ = ["LossSums", "Objective"]

_MEAN = ("sum_over_batch_size", "mean")


@dataclass(frozen=True, kw_only=True)
class LossSums:
    """The loss of one part of a batch.

    Attributes:
        objective: scalar; its gradient, summed over parts and divided by the sum of `count`, is the batch's.
        count: scalar, what `objective` is divided by in the end.
        numerators: `[losses]`, the unweighted loss sum of each output that has a loss.
        denominators: `[losses]`, what those are divided by.
    """

    objective: Any
    count: Any
    numerators: Any
    denominators: Any


class Objective:
    """The losses of a model's outputs.

    Args:
        loss: a name, a function, a `keras.losses.Loss`, or a list or dict of them by output.
        loss_weights: None, a number, or a list or dict of numbers by output.

    Attributes:
        names: the outputs that have a loss, known once the first batch was traced.
        weights: the weight of each.
    """

    def __init__(self, loss: Any, loss_weights: Any = None) -> None:
        self._loss = loss
        self._loss_weights = loss_weights
        self._losses: list[Any] | None = None
        self.names: list[str] = []
        self.weights: list[float] = []

    def sums(self, names: list[str], y: list[Any], y_pred: list[Any], weight: list[Any], share: Any, cut: bool) -> Any:
        """The loss sums of one part.

        Args:
            names: the outputs' names.
            y: each output's targets `[rows, ...]`, or None.
            y_pred: each output `[rows, ...]`.
            weight: each output's sample weights, or None.
            share: scalar, this part's share of the batch's rows.
            cut: whether the batch has more than one part.

        Returns:
            `LossSums`.

        Raises:
            ConfigError: a loss that does not fit the outputs, or cannot be summed over parts.
        """
        if self._losses is None:
            self._resolve(names, y, y_pred)
        assert self._losses is not None
        used = [i for i, loss in enumerate(self._losses) if loss is not None]
        pairs = [_loss_sums(self._losses[i], y[i], y_pred[i], weight[i], share) for i in used]
        numerators, denominators = tf.stack([num for num, _ in pairs]), tf.stack([den for _, den in pairs])
        if len(pairs) == 1:
            return LossSums(
                objective=self.weights[0] * numerators[0],
                count=denominators[0],
                numerators=numerators,
                denominators=denominators,
            )
        # Several outputs have one gradient between them, so their denominators must be known before it is summed:
        # each is a fixed number of elements a row (with one part, any number will do).
        if cut:
            self._check_cuttable(used, y_pred)
        rows = tf.cast(tf.shape(y_pred[used[0]])[0], numerators.dtype)
        elements_a_row = tf.math.divide_no_nan(denominators, rows)
        weighted = tf.constant(self.weights, numerators.dtype) * tf.math.divide_no_nan(numerators, elements_a_row)
        return LossSums(objective=tf.reduce_sum(weighted), count=rows, numerators=numerators, denominators=denominators)

    def mean(self, numerators: Any, denominators: Any) -> Any:
        """The batch's loss from the sums over all its parts: the weighted sum of the outputs' means."""
        means = tf.math.divide_no_nan(numerators, denominators)
        return tf.reduce_sum(tf.constant(self.weights, means.dtype) * means)

    def _resolve(self, names: list[str], y: list[Any], y_pred: list[Any]) -> None:
        identifiers = per_output(self._loss, names, "loss", shared=True)
        weights = per_output(self._loss_weights, names, "loss_weights")
        losses: list[Any] = []
        for name, identifier, target, output in zip(names, identifiers, y, y_pred, strict=True):
            if identifier is not None and target is None:
                raise ConfigError(f"the output {name!r} has a loss but no targets: give y for it")
            losses.append(None if identifier is None else _loss_object(identifier, target, output))
        if not any(losses):
            raise ConfigError("no output has a loss: compile the model with one, or give loss=...")
        self._losses = losses
        self.names = [name for name, loss in zip(names, losses, strict=True) if loss]
        self.weights = [
            1.0 if weight is None else float(weight) for weight, loss in zip(weights, losses, strict=True) if loss
        ]

    def _check_cuttable(self, used: list[int], y_pred: list[Any]) -> None:
        assert self._losses is not None
        for i in used:
            if _mask(y_pred[i]) is not None or self._losses[i].their_reduction == "mean_with_sample_weight":
                raise ConfigError(
                    f"the output {self.names[used.index(i)]!r} is one of several and its loss divides by a mask or by "
                    "weights, which cannot be summed over replicas yet: use one replica"
                )


class _FunctionLoss(keras.losses.Loss):
    """A loss function `(y_true, y_pred) -> [rows, ...]` as a Keras loss, as `compile` would wrap it."""

    def __init__(self, function: Any) -> None:
        super().__init__(name=getattr(function, "__name__", "loss"))
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Brings targets and outputs to one rank, as Keras does, and calls the function."""
        return self.function(*_same_rank(y_true, y_pred))


def _loss_object(identifier: Any, y: Any, y_pred: Any) -> Any:
    if str(identifier).lower() in ("crossentropy", "ce"):
        if y_pred.shape[-1] == 1:
            identifier = keras.losses.binary_crossentropy
        elif len(y.shape) < len(y_pred.shape) or y.shape[-1] == 1:
            identifier = keras.losses.sparse_categorical_crossentropy
        else:
            identifier = keras.losses.categorical_crossentropy
    try:
        loss = keras.losses.get(identifier)
    except ValueError as error:
        raise ConfigError(f"unknown loss {identifier!r}: give one of keras.losses, or a function") from error
    loss = copy.copy(loss) if isinstance(loss, keras.losses.Loss) else _FunctionLoss(loss)
    if loss.reduction in (None, "none"):
        raise ConfigError(f"the loss {loss.name} has reduction=None, so a batch has no single loss: leave it out")
    # With no reduction Keras's own call gives the weighted and masked elements; we sum and count them ourselves.
    loss.their_reduction, loss.reduction = loss.reduction, None
    return loss


def _loss_sums(loss: Any, y: Any, y_pred: Any, weight: Any, share: Any) -> tuple[Any, Any]:
    """(sum, denominator) of one output's loss over one part."""
    mask = _mask(y_pred)
    values = loss(y, y_pred, weight)
    rows = tf.cast(tf.shape(y_pred)[0], values.dtype)
    if values.shape.rank == 0:
        # A user's loss that returns its own mean: it counts for each row.
        return values * rows, rows
    total = tf.reduce_sum(values)
    if loss.their_reduction == "sum":
        return total, tf.cast(share, values.dtype)
    size = tf.cast(tf.size(values), values.dtype)
    if loss.their_reduction in _MEAN:
        if mask is None:
            return total, size
        kept = tf.reduce_sum(tf.cast(mask, values.dtype))
        return total, tf.math.divide_no_nan(size * kept, tf.cast(tf.size(mask), values.dtype))
    if mask is not None:
        kept = tf.cast(mask, values.dtype)
        weight = kept if weight is None else tf.cast(_same_rank(weight, kept)[0], values.dtype) * kept
    return total, size if weight is None else tf.reduce_sum(tf.cast(weight, values.dtype))


def _mask(y_pred: Any) -> Any:
    return getattr(y_pred, "_keras_mask", None)


def _same_rank(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Adds or drops a last axis of size 1 where the ranks differ by one, as Keras's losses do."""
    true_rank, pred_rank = len(y_true.shape), len(y_pred.shape)
    if true_rank == pred_rank + 1 and y_true.shape[-1] == 1:
        return (y_true, y_pred[..., tf.newaxis]) if pred_rank == 1 else (tf.squeeze(y_true, -1), y_pred)
    if pred_rank == true_rank + 1 and y_pred.shape[-1] == 1:
        return (y_true[..., tf.newaxis], y_pred) if true_rank == 1 else (y_true, tf.squeeze(y_pred, -1))
    return y_true, y_pred
