"""The sums of a batch: gradients, loss, metrics and state, over its parts and by one collective."""

import contextlib
import inspect
from typing import Any, NamedTuple

from tfmb.backend import keras, tf
from tfmb.choices import JitScope
from tfmb.data.batches import part_bounds
from tfmb.distribution import collectives
from tfmb.distribution.strategy import adds_up_on_one_device, is_on_cpu
from tfmb.errors import ConfigError
from tfmb.layers import PartOfBatch, part_of_batch
from tfmb.optimizers.optimizer import raw_variable
from tfmb.optimizers.sparse import squared
from tfmb.training.input.elements import data_of
from tfmb.training.step.conv_as_matmul import conv_as_matmul
from tfmb.training.step.loss import LossSums, LossTerms
from tfmb.training.step.metrics import Metrics
from tfmb.training.step.model_state import dropouts, merged_state, refuse_padding
from tfmb.training.step.outputs import flatten_outputs, per_output
from tfmb.training.step.partition import (
    add_in_tree,
    only_reads,
    over_own_parts,
    rows_of_part,
    static_rows,
    whole_batch,
)
from tfmb.training.step.spec import PlacedModel, StepSpec
from tfmb.training.step.update import absent, report_dtype, square_of
from tfmb.types import Batch, DType, KerasModel, Tensor

__all__ = ["GradientReduction", "Scores"]


class Scores(NamedTuple):
    """Sums over all rows of a batch.

    Attributes:
        counts: `[objectives]`, the divisors of the gradient sums.
        rows: scalar, the number of examples.
        added: scalar, the mean of what layers added to the loss, times the rows.
        numerators: `[losses]`, each output's loss sum.
        denominators: `[losses]`, the divisors of those.
        metrics: `[state size of all metrics]`.
        squares: `[1]`, the parts' rows times the square of their mean gradient, where noise is measured; else `[0]`.
    """

    counts: Any
    rows: Any
    added: Any
    numerators: Any
    denominators: Any
    metrics: Any
    squares: Any


class GradientReduction:
    """Adds up a batch, in the replica context: every device sees the whole batch and takes its own parts of it.

    Args:
        placed: the model, whose variables were made in the strategy's scope; an optimizer that rounds as Keras has the
            squares of every occurrence of an embedding's row added up too: see `sparse`.
        spec: the options of the step.
        mask_keys: int64 variable, `layers.mask_keys` of the seed for `len(dropouts(model))` layers.
        loss_terms: the loss.
        metrics: the metrics.

    Attributes:
        trainable: the raw trainable variables.
        merged: the raw variables of the state that a training step moves.
        dtype: that in which sums travel between replicas: the widest of the weights'.
        has_own_loss: whether the model overrides `compute_loss`.
        present: by objective, the numbers of the trainable variables that have a gradient; known after tracing.
        repeated: by objective, those whose gradient is of rows, with `squares`; known after tracing.
    """

    def __init__(
        self, placed: PlacedModel, spec: StepSpec, mask_keys: Tensor, loss_terms: LossTerms, metrics: Metrics
    ) -> None:
        model, partition, scope = placed.model, spec.partition, spec.jit_scope
        self.model, self.partition = model, partition
        self.loss_terms, self.metrics = loss_terms, metrics
        self.trainable = [raw_variable(v) for v in model.trainable_variables]
        self.merged = [raw_variable(v) for v in merged_state(model)]
        self.dtype = report_dtype(self.trainable)
        self.present: list[list[int]] = []
        self.repeated: list[list[int]] = []
        self._squares = placed.optimizer is not None and placed.optimizer.rounds_as_keras
        self._mask_keys, self._noise = mask_keys, spec.noise_scale
        # XLA's slow operations are replaced for one CPU alone. With parts the bits may not depend on the number of
        # devices, and replicas share the model's layers.
        alone = partition.virtual_replicas is None and partition.replicas == 1
        compiles = scope in (JitScope.GRADIENTS, JitScope.STEP, JitScope.CALL)
        self._xla_on_cpu = compiles and alone and is_on_cpu(placed.strategy)
        self._work: Any = self._part
        if scope is JitScope.GRADIENTS:
            self._work = tf.function(self._part, jit_compile=True, autograph=False)
        self._dropouts = {id(layer): number for number, layer in enumerate(dropouts(model))}
        self.has_own_loss = type(model).compute_loss is not keras.Model.compute_loss

    def training(
        self, batch: Batch, before: list[Any], update: Tensor, scale: Tensor
    ) -> tuple[Any, Scores, list[Any], Any]:
        """(gradient sums by objective, scores, moves of the state times rows, sums of squares by objective) of a batch.

        They are the same on every replica.

        Args:
            batch: `(x, y, sample_weight)`, the whole of it; padded, with its number of rows in fourth place.
            before: the values of `merged`, from which every part starts.
            update: int64 scalar, the number of updates made.
            scale: scalar factor on the loss, which the gradients keep; `()` for none.
        """
        padded = self._pads(batch, self.partition.num_microbatches)
        if padded:
            refuse_padding(self.model)
        batch, size = whole_batch(batch)
        if self.partition.virtual_replicas is None:
            part, start, rows = self._own_rows(batch, size, padded)
            return self._add_up(self._work(part, start, rows, size, before, update, scale))
        layout: list[Any] = []

        def flat(*arguments: Any) -> Any:
            layout[:] = [self._work(*arguments)]
            return keras.tree.flatten(layout[0])

        def part_number(number: Any) -> tuple[Any, ...]:
            start, stop = part_bounds(size, number, self.partition.num_microbatches)
            part = rows_of_part(batch, start, stop, self.partition.num_microbatches, self.partition.static, padded)
            return part, start, stop - start, size, before, update, scale

        # Traced on its own first: how long a part's sums are must be known before the loop.
        part, *others = part_number(tf.constant(0))
        own = keras.tree.map_structure(self._spec_of_any_part, part)
        specs = [own, *keras.tree.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), others)]
        part_sums = tf.function(flat, autograph=False).get_concrete_function(*specs)
        found = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in part_sums.outputs]
        number = _replica_number(self.partition.replicas)
        overlaps = not self.partition.one_by_one and only_reads(part_sums)
        sums = over_own_parts(self.partition, number, lambda n: part_sums(*part_number(n)), found, overlaps)
        if self.partition.replicas == 2:
            sums = self._add_up(sums)  # the order of two does not matter
        elif self.partition.replicas > 2:
            everyone = collectives.gather(_pack(sums)[tf.newaxis])
            sums = _unpack(add_in_tree(tf.unstack(everyone, num=self.partition.replicas)), sums)
        return keras.tree.pack_sequence_as(layout[0], sums)

    def scoring(self, batch: Batch) -> Scores:
        """The scores of a batch, with the weights as they are."""
        padded = self._pads(batch, self.partition.replicas)
        batch, size = whole_batch(batch)
        part, _, rows = self._own_rows(batch, size, padded)
        _, scores = self._forward(part, rows, size, training=False)
        if self.partition.replicas > 1:
            scores = keras.tree.map_structure(lambda tensor: _where_rows(rows, tensor), scores)
        return self._add_up(scores)

    def penalty(self, gradients: bool = True) -> tuple[Any, list[Any]]:
        """The regularisers' loss and its gradients: functions of the weights alone, added once, after the sums."""
        penalized = [v for v in self.model.trainable_variables if getattr(v, "regularizer", None) is not None]
        nothing: list[Any] = [None] * len(self.trainable)
        if not penalized or self.has_own_loss:
            return tf.constant(0.0, self.dtype), nothing
        with tf.GradientTape() as tape:
            penalty = tf.add_n([tf.cast(tf.reduce_sum(v.regularizer(v)), self.dtype) for v in penalized])
        return penalty, tape.gradient(penalty, self.trainable) if gradients else nothing

    def _spec_of_any_part(self, tensor: Tensor) -> Any:
        """Returns the spec of any part's rows: the number of rows is open if batches have a known size."""
        return tf.TensorSpec(tensor.shape if self.partition.static else [None, *tensor.shape[1:]], tensor.dtype)

    def _pads(self, batch: Batch, parts: int) -> bool:
        """Whether one of `parts` parts may have fewer rows than its shape says."""
        return self.partition.static and (len(batch) == 4 or static_rows(batch[0]) % parts != 0)

    def _own_rows(self, batch: Batch, size: Tensor, padded: bool) -> tuple[Any, Any, Any]:
        """(part, its first row's number, its number of rows) of this device's one part."""
        replicas = self.partition.replicas
        start, stop = part_bounds(size, _replica_number(replicas), replicas)
        return rows_of_part(batch, start, stop, replicas, self.partition.static, padded), start, stop - start

    def _part(
        self, part: Any, start: Tensor, rows: Tensor, size: Tensor, before: list[Any], update: Tensor, scale: Tensor
    ) -> Any:
        """Returns one part's gradient sums by objective, its score sums, and its moves of the state times its rows."""
        if self.partition.microbatches_per_replica > 1:
            for variable, value in zip(self.merged, before, strict=True):
                variable.assign(value)
        here = PartOfBatch(
            keys=self._mask_keys, update=update, start=start, order=self._dropouts, xla_on_cpu=self._xla_on_cpu
        )
        with tf.GradientTape(persistent=True) as tape, part_of_batch(here):
            objectives, scores = self._forward(part, rows, size, training=True)
            if self.partition.num_microbatches == 1:
                # Nothing is to be added: the gradient of the mean saves a pass over all gradients.
                counts = tf.unstack(scores.counts)
                objectives = [tf.math.divide_no_nan(o, count) for o, count in zip(objectives, counts, strict=True)]
                scores = scores._replace(counts=tf.ones_like(scores.counts))
            if not absent(scale):
                objectives = [loss_terms * tf.cast(scale, loss_terms.dtype) for loss_terms in objectives]
        by_objective = [tape.gradient(loss_terms, self.trainable) for loss_terms in objectives]
        del tape
        self.present = [[i for i, g in enumerate(gradients) if g is not None] for gradients in by_objective]
        flat = [
            [tf.ensure_shape(tf.convert_to_tensor(gradients[i]), self.trainable[i].shape) for i in present]
            for present, gradients in zip(self.present, by_objective, strict=True)
        ]
        self.repeated = [
            [i for i in present if self._squares and isinstance(gradients[i], tf.IndexedSlices)]
            for present, gradients in zip(self.present, by_objective, strict=True)
        ]
        squares = [
            [squared(gradients[i], self.trainable[i].shape) for i in repeated]
            for repeated, gradients in zip(self.repeated, by_objective, strict=True)
        ]
        # What it moved the state by, and not the state: what no part moved keeps its bits.
        weight = tf.cast(rows, self.dtype)
        if self._noise:
            square = self.square_of_mean(flat, scores.counts, scale)
            scores = scores._replace(squares=(weight * square)[tf.newaxis])
        state = [tf.cast(v - value, self.dtype) * weight for v, value in zip(self.merged, before, strict=True)]
        sums = keras.tree.map_structure(lambda tensor: tf.cast(tensor, self.dtype), (flat, scores, state, squares))
        if self.partition.num_microbatches == 1:
            return sums
        # A part without rows counts nothing, whatever a layer made of no rows. Such parts are rare: others are not
        # to pay for them with a pass over all gradients.
        return tf.cond(weight > 0, lambda: sums, lambda: keras.tree.map_structure(tf.zeros_like, sums))

    def square_of_mean(self, sums: list[list[Any]], counts: Tensor, scale: Tensor) -> Any:
        """The square of the mean gradient that gradient sums by objective and their counts give, over all weights."""
        counts = tf.cast(counts, self.dtype)
        if len(sums) == 1:  # without a pass of its own over all gradients for the mean
            total = tf.math.divide_no_nan(square_of(sums[0], self.dtype), counts[0] ** 2)
        else:
            means: dict[int, Any] = {}
            for number, (present, gradients) in enumerate(zip(self.present, sums, strict=True)):
                for i, gradient in zip(present, gradients, strict=True):
                    mean = tf.math.divide_no_nan(tf.cast(gradient, self.dtype), counts[number])
                    means[i] = means[i] + mean if i in means else mean
            total = square_of(list(means.values()), self.dtype)
        return total if absent(scale) else total / tf.cast(scale, self.dtype) ** 2

    def _forward(self, part: Any, rows: Tensor, size: Tensor, training: bool) -> tuple[list[Any], Scores]:
        """The losses whose gradients are wanted, and the scores."""
        batch, present = part
        x, y, sample_weight = data_of(batch)
        present = None if absent(present) else present
        with conv_as_matmul(self.model) if training and self._xla_on_cpu else contextlib.nullcontext():
            outputs = self.model(x, training=training)
        names, y_pred = flatten_outputs(outputs, getattr(self.model, "output_names", None))
        targets = per_output(y, names, "y")
        weight = per_output(sample_weight, names, "sample_weight", shared=True)
        rows, size = tf.cast(rows, self.dtype), tf.cast(size, self.dtype)
        added = None
        if self.has_own_loss:
            if present is not None:
                raise ConfigError(
                    f"{type(self.model).__name__}.compute_loss cannot leave out the rows that fill up a batch: "
                    "set pad_batches=False, or use a batch size that divides the examples"
                )
            accepted = inspect.signature(self.model.compute_loss).parameters
            told = {"training": training} if "training" in accepted or "kwargs" in accepted else {}
            mean = self.model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight, **told)
            sums = _mean_as_sums(tf.cast(mean, self.dtype), rows)
        else:
            added = _added_losses(self.model, self.dtype)
            if added is not None and present is not None:
                raise ConfigError(
                    f"the losses that layers of {self.model.name!r} add count the rows that fill up a batch: "
                    "set pad_batches=False, or use a batch size that divides the examples"
                )
            partition = self.partition.num_microbatches > 1
            sums = self.loss_terms.sums(names, targets, y_pred, weight, added, rows, size, partition, present)
        scores = Scores(
            counts=sums.counts,
            rows=rows,
            added=tf.constant(0.0, self.dtype) if added is None else _weighed(added, rows),
            numerators=sums.numerators,
            denominators=sums.denominators,
            metrics=self.metrics.sums(targets, y_pred, weight, self.dtype, rows / size, present),
            squares=tf.zeros([0], self.dtype),
        )
        return sums.objectives, scores

    def _add_up(self, parts: Any) -> Any:
        """The sum of a structure over all replicas by one all-reduce; the same bits on each of them."""
        parts = keras.tree.map_structure(lambda tensor: tf.cast(tensor, self.dtype), parts)
        if self.partition.replicas == 1:
            return parts
        if adds_up_on_one_device(tf.distribute.get_strategy()):  # where packing is only a copy
            return keras.tree.pack_sequence_as(parts, collectives.sum_up(keras.tree.flatten(parts)))
        return _unpack(collectives.sum_up([_pack(parts)])[0], parts)


def _mean_as_sums(mean: Tensor, rows: Tensor) -> LossSums:
    """A model's own `compute_loss`, a mean over the part's rows."""
    total = _weighed(mean, rows)
    count = rows[tf.newaxis]
    return LossSums(objectives=[total], counts=count, numerators=total[tf.newaxis], denominators=count)


def _replica_number(replicas: int) -> Any:
    if replicas == 1:
        return tf.constant(0)
    return tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)


def _pack(tensors: Any) -> Any:
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in keras.tree.flatten(tensors)], 0)


def _unpack(vector: Any, like: Any) -> Any:
    """Cuts a vector into tensors of the static shapes of a structure."""
    shapes = [tensor.shape for tensor in keras.tree.flatten(like)]
    pieces = tf.split(vector, [shape.num_elements() for shape in shapes])
    return keras.tree.pack_sequence_as(
        like, [tf.reshape(piece, shape) for piece, shape in zip(pieces, shapes, strict=True)]
    )


def _where_rows(rows: Tensor, value: Any) -> Any:
    """The value, and 0 where there are no rows."""
    return tf.where(rows > 0, value, tf.zeros_like(value))


def _weighed(value: Any, rows: Tensor) -> Any:
    """`value * rows`, and 0 where there are no rows: the statistics of no example are NaN."""
    return _where_rows(rows, value) * rows


def _added_losses(model: KerasModel, dtype: DType) -> Any:
    """Returns the sum of what `add_loss` and activity regularisers added in the call just made; None for nothing."""
    regularizers = sum(1 for v in model.trainable_variables if getattr(v, "regularizer", None) is not None)
    losses = model.losses  # the weights' own regularisers stand last
    added = losses[: len(losses) - regularizers]
    return tf.add_n([tf.cast(tf.reduce_sum(loss), dtype) for loss in added]) if added else None
