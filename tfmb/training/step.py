"""The graph side of the loop: part of a batch -> sums -> one collective -> mean gradient -> update.

Every replica sees the whole batch and takes its own rows of it, so a ragged or tiny batch needs no special
case: the sums of its parts are added up, and divided once.
"""

from typing import Any

from tfmb.backend import keras, tf
from tfmb.data.batches import part_bounds
from tfmb.errors import ConfigError
from tfmb.optimizers import Optimizer
from tfmb.optimizers.optimizer import raw_variable
from tfmb.training.metrics import Metrics
from tfmb.training.objective import Objective
from tfmb.training.outputs import flatten_outputs, per_output
from tfmb.training.state import merged_state

__all__ = ["Steps"]


class Steps:
    """The compiled functions that train and score a model, many batches a call.

    Args:
        model: a built `keras.Model` whose variables were made in the strategy's scope.
        optimizer: built for the model's trainable variables; None where the model is only scored.
        objective: the loss.
        metrics: the metrics.
        strategy: a one-device or mirrored strategy.

    Attributes:
        train: `(iterator, num_steps) -> (reports, finite)`: takes `num_steps` (an int32 scalar tensor) batches
            `(x, y, sample_weight)` from the iterator and updates the weights after each. `reports` is
            `[steps done, 3 + losses + metric sums]`, a row for each step: the batch's loss, its number of examples,
            then the loss and each output's loss times that number, and what the metrics add up. `finite` is False
            where the last row's loss or gradients were not: that update was not made, no further batch drawn.
        evaluate: `(iterator, num_steps) -> reports`, with the weights as they are.
    """

    def __init__(self, model: Any, optimizer: Optimizer | None, objective: Objective, metrics: Metrics, strategy: Any):
        self.model = model
        self.optimizer = optimizer
        self.objective = objective
        self.metrics = metrics
        self.strategy = strategy
        self.replicas = strategy.num_replicas_in_sync
        self._trainable = [raw_variable(v) for v in model.trainable_variables]
        self._merged = [raw_variable(v) for v in merged_state(model)]
        # The dtype in which sums travel between replicas: the widest of the weights'.
        wide = any(v.dtype == tf.float64 for v in self._trainable)
        self._dtype = tf.float64 if wide else tf.float32
        self.train = tf.function(self._train, autograph=False)
        self.evaluate = tf.function(self._evaluate, autograph=False)

    def _train(self, iterator: Any, num_steps: Any) -> tuple[Any, Any]:
        return self._repeat(iterator, num_steps, self._train_part)

    def _evaluate(self, iterator: Any, num_steps: Any) -> Any:
        return self._repeat(iterator, num_steps, self._evaluate_part)[0]

    def _repeat(self, iterator: Any, num_steps: Any, part: Any) -> tuple[Any, Any]:
        """Runs `part` on every replica for one batch after the other, until one is not finite."""

        def body(step: Any, _: Any, reports: Any) -> tuple[Any, Any, Any]:
            report, finite = self._everywhere(part, next(iterator))
            return step + 1, finite, reports.write(step, report)

        def more(step: Any, finite: Any, _: Any) -> Any:
            return tf.logical_and(step < num_steps, finite)

        reports = tf.TensorArray(self._dtype, size=0, dynamic_size=True, infer_shape=False)
        start = (tf.constant(0), tf.constant(True), reports)
        done, finite, reports = tf.while_loop(more, body, start, parallel_iterations=1)
        del done
        return reports.stack(), finite

    def _everywhere(self, part: Any, batch: Any) -> tuple[Any, Any]:
        """`strategy.run` of one part a replica; every replica returns the same, so the first one's will do."""
        report, finite = self.strategy.run(part, args=(batch,))
        first = self.strategy.experimental_local_results
        return first(report)[0], first(finite)[0]

    def _train_part(self, batch: Any) -> tuple[Any, Any]:
        optimizer = self.optimizer
        assert optimizer is not None
        part, share, rows = self._own_rows(batch)
        before = [tf.identity(v) for v in self._merged]
        with tf.GradientTape() as tape:
            objective, scores = self._sums(part, share, rows, training=True)
        gradients = tape.gradient(objective, self._trainable)
        present = [i for i, gradient in enumerate(gradients) if gradient is not None]
        flat = [tf.cast(tf.convert_to_tensor(gradients[i]), self._dtype) for i in present]
        state = [_weighed(tf.cast(v, self._dtype), rows) for v in self._merged] if self.replicas > 1 else []
        # One collective carries everything: gradients, loss, metrics and non-trainable state.
        flat, scores, state = self._add_up((flat, scores, state))
        penalty, penalty_gradients = self._penalty()
        report, loss = self._report(scores, penalty)
        for i, gradient in zip(present, flat, strict=True):
            mean = tf.math.divide_no_nan(gradient, scores[0])
            extra = penalty_gradients[i]
            gradients[i] = mean if extra is None else mean + tf.cast(extra, self._dtype)
        for i, extra in enumerate(penalty_gradients):
            if gradients[i] is None and extra is not None:
                gradients[i] = extra
        finite = tf.reduce_all(
            [tf.math.is_finite(loss)] + [tf.reduce_all(tf.math.is_finite(g)) for g in gradients if g is not None]
        )

        def update() -> Any:
            optimizer.apply(gradients)
            for variable, total in zip(self._merged, state, strict=False):
                variable.assign(tf.cast(total / scores[1], variable.dtype))
            return tf.constant(True)

        def keep() -> Any:
            for variable, value in zip(self._merged, before, strict=True):
                variable.assign(value)
            return tf.constant(False)

        return report, tf.cond(finite, update, keep)

    def _evaluate_part(self, batch: Any) -> tuple[Any, Any]:
        part, share, rows = self._own_rows(batch)
        _, scores = self._sums(part, share, rows, training=False)
        _, scores, _ = self._add_up(([], scores, []))
        report, _ = self._report(scores, self._penalty(gradients=False)[0])
        return report, tf.constant(True)

    def _own_rows(self, batch: Any) -> tuple[Any, Any, Any]:
        """This replica's rows of the batch, their share of it, and their number."""
        size = tf.shape(keras.tree.flatten(batch)[0])[0]
        if self.replicas == 1:
            return batch, tf.constant(1.0, self._dtype), tf.cast(size, self._dtype)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        start, stop = part_bounds(size, replica, self.replicas)
        part = keras.tree.map_structure(lambda tensor: tensor[start:stop], batch)
        rows = tf.cast(stop - start, self._dtype)
        return part, rows / tf.cast(size, self._dtype), rows

    def _sums(self, part: Any, share: Any, rows: Any, training: bool) -> tuple[Any, list[Any]]:
        """The loss whose gradient is wanted, and the scores: the sums that the report is made of."""
        x, y, sample_weight = part
        outputs = self.model(x, training=training)
        names, y_pred = flatten_outputs(outputs, getattr(self.model, "output_names", None))
        targets = per_output(y, names, "y")
        weight = per_output(None if _absent(sample_weight) else sample_weight, names, "sample_weight", shared=True)
        sums = self.objective.sums(names, targets, y_pred, weight, share, cut=self.replicas > 1)
        added = _added_losses(self.model, self._dtype, cut=self.replicas > 1)
        objective = tf.cast(sums.objective, self._dtype) + tf.cast(sums.count, self._dtype) * added
        metric_sums = self.metrics.sums(names, targets, y_pred, weight, self._dtype)
        return objective, [sums.count, rows, added, sums.numerators, sums.denominators, metric_sums]

    def _add_up(self, parts: Any) -> Any:
        """The sum of a structure over all replicas, packed into one collective; the same bits on each of them."""
        parts = keras.tree.map_structure(lambda tensor: tf.cast(tensor, self._dtype), parts)
        if self.replicas == 1:
            return parts
        tensors = keras.tree.flatten(parts)
        shapes = [_static_or_dynamic_shape(tensor) for tensor in tensors]
        packed = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
        total = tf.distribute.get_replica_context().all_reduce("sum", packed)
        pieces = tf.split(total, [tf.size(tensor) for tensor in tensors], num=len(tensors))
        return keras.tree.pack_sequence_as(
            parts, [tf.reshape(piece, shape) for piece, shape in zip(pieces, shapes, strict=True)]
        )

    def _report(self, scores: list[Any], penalty: Any) -> tuple[Any, Any]:
        _, rows, added, numerators, denominators, metric_sums = scores
        loss = self.objective.mean(numerators, denominators) + added + penalty
        means = tf.math.divide_no_nan(numerators, denominators)
        return tf.concat([tf.stack([loss, rows, loss * rows]), means * rows, metric_sums], 0), loss

    def _penalty(self, gradients: bool = True) -> tuple[Any, list[Any]]:
        """The regularisers' loss and its gradients: functions of the weights alone, added once, after the sum."""
        penalized = [v for v in self.model.trainable_variables if getattr(v, "regularizer", None) is not None]
        nothing: list[Any] = [None] * len(self._trainable)
        if not penalized:
            return tf.constant(0.0, self._dtype), nothing
        with tf.GradientTape() as tape:
            penalty = tf.add_n([tf.cast(tf.reduce_sum(v.regularizer(v)), self._dtype) for v in penalized])
        return penalty, tape.gradient(penalty, self._trainable) if gradients else nothing


def _weighed(value: Any, rows: Any) -> Any:
    """`value * rows`, and 0 where there are no rows: the statistics of no example are NaN."""
    return tf.where(rows > 0, value, tf.zeros_like(value)) * rows


def _absent(sample_weight: Any) -> bool:
    return isinstance(sample_weight, tuple) and not sample_weight


def _added_losses(model: Any, dtype: Any, cut: bool) -> Any:
    """The sum of what layers put in by `add_loss` or an activity regulariser in the call just made."""
    regularizers = sum(1 for v in model.trainable_variables if getattr(v, "regularizer", None) is not None)
    losses = model.losses  # the weights' own regularisers stand last
    added = losses[: len(losses) - regularizers]
    if added and cut:
        raise ConfigError(
            f"the model adds {len(added)} loss(es) of its own (add_loss or an activity regularizer), which cannot be "
            "summed over replicas yet: use one replica"
        )
    return tf.add_n([tf.cast(tf.reduce_sum(loss), dtype) for loss in added]) if added else tf.constant(0.0, dtype)


def _static_or_dynamic_shape(tensor: Any) -> Any:
    return tensor.shape if tensor.shape.is_fully_defined() else tf.shape(tensor)
