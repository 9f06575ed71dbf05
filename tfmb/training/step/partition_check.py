"""Checks whether a batch may be cut: Keras's results for all of it must be the sums of its parts.

Cutting takes a loss for a sum over rows with a count, and a metric's state for a sum. That is looked at where it is
relied on: on the first batch of an epoch and on each of another size, from the outputs of the whole batch in one pass.
"""

from typing import Any

from tfmb.backend import keras, tf
from tfmb.data.batches import part_bounds
from tfmb.errors import ConfigError
from tfmb.training.input.elements import data_of
from tfmb.training.step.loss import LossTerms
from tfmb.training.step.metrics import Metrics
from tfmb.training.step.outputs import flatten_outputs, per_output
from tfmb.training.step.partition import Partition
from tfmb.types import Batch, Data, DType, KerasModel, Tensor

__all__ = ["PartitionCheck"]

# What does not add up over four parts is not let through because it might over more.
_MOST_PARTS = 4
# Sizes of batches that are remembered within an epoch.
_SIZES = 8
# Relative: rounding of sums of thousands of float32 terms stays a hundred times below; 16 bits have 3 digits.
_TOLERANCE, _TOLERANCE_OF_16_BITS = 1e-4, 5e-2
_LEAVE_OUT = "leave out virtual_replicas and micro_batch_size, and use one device"


class PartitionCheck:
    """Compares the losses of a batch, their gradients by the outputs, and the metrics.

    Args:
        model: its variables on the strategy's devices.
        keras_model: the user's model, compiled.
        loss_terms: resolved.
        metrics: resolved.
        partition: how a batch is cut.
    """

    def __init__(
        self, model: KerasModel, keras_model: KerasModel, loss_terms: LossTerms, metrics: Metrics, partition: Partition
    ) -> None:
        self._model, self._keras_model, self._objective, self._metrics = model, keras_model, loss_terms, metrics
        self._has_own_loss = type(model).compute_loss is not keras.Model.compute_loss
        self._parts = min(partition.num_microbatches, _MOST_PARTS)
        self._sizes = tf.Variable(tf.zeros([_SIZES], tf.int32), trainable=False, name="checked_sizes")
        self._apart = tf.Variable(tf.zeros([len(self._names())]), trainable=False, name="apart")

    def begin(self) -> None:
        """Begins an epoch: every size is new."""
        self._sizes.assign(tf.zeros_like(self._sizes))

    def holds(self, batch: Batch) -> Any:
        """Whether a batch `(x, y, sample_weight)` of this size may be cut, a scalar bool tensor.

        Call it outside the replica context, in which Keras divides a loss by the number of replicas.
        """
        size = tf.shape(keras.tree.flatten(batch)[0])[0]
        is_new = tf.logical_not(tf.reduce_any(tf.equal(self._sizes, size)))

        def look() -> Any:
            apart = self._compare(batch)
            self._apart.assign(apart)
            self._sizes.assign(tf.concat([size[tf.newaxis], self._sizes[:-1]], 0))
            return tf.reduce_all(apart == 0.0)

        return tf.cond(is_new, look, lambda: tf.constant(True))

    def raise_what_was_found(self) -> None:
        """Raises the finding of the last comparison.

        Raises:
            ConfigError: a loss or a metric that does not add up.
        """
        for name, apart in zip(self._names(), self._apart.numpy(), strict=True):
            if apart:
                raise ConfigError(
                    f"{name} of a whole batch is not what its parts add up to, so no batch can be cut: {_LEAVE_OUT}"
                )

    def _names(self) -> list[str]:
        losses = [f"the loss {loss.name!r}" for loss, _ in self._objective.losses]
        losses += ["the model's own compute_loss"] if self._has_own_loss else []
        return losses + [f"the metric {metric.name!r}" for metric, _, _ in self._metrics.entries]

    def _compare(self, batch: Batch) -> Any:
        """Returns by loss and metric 0 if both agree, else 1."""
        x, y, sample_weight = data_of(batch)
        outputs = self._model(x, training=False)
        names, tensors = flatten_outputs(outputs, getattr(self._model, "output_names", None))
        targets = per_output(y, names, "y")
        weights = per_output(sample_weight, names, "sample_weight", shared=True)
        found = [
            self._of_loss(number, x, y, outputs, sample_weight, targets, tensors, weights) for number in self._losses
        ]
        found += [self._of_metric(number, targets, tensors, weights) for number in range(len(self._metrics.entries))]
        return tf.stack(found) if found else tf.zeros([0])

    @property
    def _losses(self) -> range:
        return range(len(self._objective.losses) + self._has_own_loss)

    def _of_loss(
        self, number: int, x: Data, y: Data, outputs: Any, sample_weight: Data, targets: Any, tensors: Any, weights: Any
    ) -> Any:
        with tf.GradientTape(persistent=True) as tape, keras.StatelessScope():
            # Keras differentiates a cross-entropy by the logits that it finds at a softmax's output.
            sources = [getattr(tensor, "_keras_logits", tensor) for tensor in tensors]
            tape.watch(sources)
            if self._objective.losses:
                loss, i = self._objective.losses[number]
                whole = loss(targets[i], tensors[i], weights[i])
                parts = self._of_parts((targets[i], tensors[i], weights[i]), number)
            else:
                whole = self._keras_model._compute_loss(x, y, outputs, sample_weight, training=False)
                parts = [self._own_of_parts(x, y, outputs, sample_weight)]
        apart = tf.reduce_max([_apart(whole, each, whole.dtype) for each in parts])
        for tensor in sources:
            a, b = tape.gradient(whole, tensor), tape.gradient(parts[-1], tensor)
            if a is not None and b is not None:
                apart = tf.maximum(apart, _apart(tf.convert_to_tensor(a), tf.convert_to_tensor(b), tensor.dtype))
            elif a is not None or b is not None:
                apart = tf.ones_like(apart)
        return apart

    def _of_parts(self, data: Data, number: int) -> list[Any]:
        """Returns the loss from sums over parts: first as reported, then as differentiated."""
        size = tf.shape(data[1])[0]
        sums = [[0.0, 0.0], [0.0, 0.0]]
        # A part without rows is computed on the last one, whose loss is left out: losses such as CTC want one.
        for part, rows in self._partition(data, size, fewest=1):
            y, y_pred, weight = part
            found = self._objective.sums_of(number, y, y_pred, weight, rows, size)
            for one, (total, count) in zip(sums, found, strict=True):
                one[0] += tf.where(rows > 0, total, tf.zeros_like(total))
                one[1] += tf.where(rows > 0, count, tf.zeros_like(count))
        return [tf.math.divide_no_nan(total, count) for total, count in sums]

    def _own_of_parts(self, x: Data, y: Data, outputs: Any, sample_weight: Data) -> Any:
        size = tf.shape(keras.tree.flatten(outputs)[0])[0]
        total: Any = 0.0
        for (x_part, y_part, output, weight), rows in self._partition((x, y, outputs, sample_weight), size):
            loss = self._keras_model._compute_loss(x_part, y_part, output, weight, training=False)
            total += tf.where(rows > 0, loss, tf.zeros_like(loss)) * tf.cast(rows, loss.dtype)
        return total / tf.cast(size, total.dtype)

    def _of_metric(self, number: int, targets: Any, tensors: Any, weights: Any) -> Any:
        metric, i, weighted = self._metrics.entries[number]
        data = (targets[i], tensors[i], weights[i] if weighted else None)
        size = tf.shape(tensors[i])[0]
        whole = self._metrics.state_of(metric, *data)
        parts: list[Any] = [tf.zeros_like(value) for value in whole]
        for part, rows in self._partition(data, size):
            share = tf.cast(rows, tf.float32) / tf.cast(size, tf.float32)
            y, y_pred, weight = part
            state = self._metrics.state_of(metric, y, y_pred, weight, share)
            there = [tf.where(rows > 0, value, tf.zeros_like(value)) for value in state]
            parts = [total + value for total, value in zip(parts, there, strict=True)]
        return tf.reduce_max(
            [tf.cast(_apart(a, b, tensors[i].dtype), tf.float32) for a, b in zip(whole, parts, strict=True)] or [0.0]
        )

    def _partition(self, data: Data, size: Tensor, fewest: int = 0) -> Any:
        """(data, number of rows) of each part; what Keras has attached to outputs is cut too.

        Where there are fewer rows than `fewest`, as many of the batch's last ones are given, beside the true number.
        """
        for number in range(self._parts):
            start, stop = part_bounds(size, number, self._parts)
            first, rows = tf.minimum(start, tf.maximum(size - fewest, 0)), stop - start
            last = tf.maximum(stop, first + fewest)
            yield keras.tree.map_structure(lambda value, a=first, b=last: _rows(value, a, b), data), rows


def _rows(value: Any, start: Tensor, stop: Any) -> Any:
    if value is None:
        return None
    part = value[start:stop]
    for name in ("_keras_mask", "_keras_logits"):
        if (known := getattr(value, name, None)) is not None:
            setattr(part, name, known[start:stop])
    return part


def _apart(a: Any, b: Any, dtype: DType) -> Any:
    """Returns 1 if two tensors differ by more than a dtype's rounding of outputs, else 0: a float32 scalar."""
    a, b = tf.cast(a, tf.float64), tf.cast(b, tf.float64)
    tolerance = _TOLERANCE_OF_16_BITS if tf.dtypes.as_dtype(dtype).size == 2 else _TOLERANCE
    largest = tf.maximum(tf.reduce_max(tf.abs(a)), tf.reduce_max(tf.abs(b)))
    near = tf.reduce_max(tf.abs(a - b)) <= tolerance * largest + 1e-12
    # What is not finite is told of as that.
    finite = tf.math.is_finite(largest)
    return tf.cast(tf.logical_and(finite, tf.logical_not(near)), tf.float32)
