"""An update from a batch that is cut into parts: sums over them, one division, the same on every device."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from tfmb.backend import keras, tf
from tfmb.choices import JitScope
from tfmb.distribution.strategy import is_on_cpu
from tfmb.errors import ConfigError
from tfmb.optimizers.loss_scale import LossScale
from tfmb.optimizers.sparse import WithSquare, values_of
from tfmb.runs.numerics import keep_additions_in_order
from tfmb.training.input.elements import data_of
from tfmb.training.keras_api import compile_args as keras_objects
from tfmb.training.step import report as reports
from tfmb.training.step.loss import LossTerms
from tfmb.training.step.metrics import Metrics
from tfmb.training.step.outputs import flatten_outputs
from tfmb.training.step.partition import check_dense, whole_batch
from tfmb.training.step.partition_check import PartitionCheck
from tfmb.training.step.reduction import GradientReduction, Scores
from tfmb.training.step.report import ReportView
from tfmb.training.step.spec import PlacedModel, StepSpec
from tfmb.training.step.update import OF_THE_REST, Update, check_targets, square_of
from tfmb.training.step.written_variables import graph_of
from tfmb.types import Batch, Tensor

__all__ = ["PartitionedUpdate"]


class _Total(NamedTuple):
    """The sums of a batch, the same on every replica: see `GradientReduction.training`.

    Attributes:
        gradients: the sums of gradients, times the scale, by objective.
        scores: the sums of losses and metrics, and the counts that sums are divided by.
        state: the move of each variable of the state by the microbatches, times their rows.
        squares: the sums of squares of an embedding's rows.
        penalty: the regularisers' part of the loss.
        penalty_gradients: its gradients, by variable; None for none.
        scale: the factor on the loss; `()` for none.
        before: the state before the batch.
    """

    gradients: list[list[Any]]
    scores: Scores
    state: list[Any]
    squares: Any
    penalty: Any
    penalty_gradients: list[Any]
    scale: Any
    before: list[Any]


class PartitionedUpdate(Update):
    """Trains and scores batches that are cut into parts, in the cross-replica context.

    Args:
        placed: the model, on its devices; its optimizer is None if it is only scored.
        spec: the options of the step.
        mask_keys: int64 variable, `layers.mask_keys` of the seed for `len(dropouts(model))` layers.
        loss_scale: built; None for none.

    Attributes:
        width: the number of entries of a report: see `report`. Known after `prepare`.
        dtype: of reports.
        state: nothing: all that a step writes besides weights is the model's.
    """

    def __init__(self, placed: PlacedModel, spec: StepSpec, mask_keys: Tensor, loss_scale: LossScale | None) -> None:
        super().__init__(placed.optimizer, loss_scale, spec.jit_scope)
        partition, scope = spec.partition, spec.jit_scope
        self.model, self._keras_model, self._strategy = placed.model, placed.original, placed.strategy
        self._partition, self._noise = partition, spec.noise_scale
        self.loss_terms, self._metrics = LossTerms(), Metrics()
        # With parts the bits may not depend on the number of devices, and replicas share the model's layers.
        alone = partition.virtual_replicas is None and partition.replicas == 1
        compiles = scope in (JitScope.GRADIENTS, JitScope.STEP, JitScope.CALL)
        self._reduction = GradientReduction(
            placed.model,
            self.loss_terms,
            self._metrics,
            partition,
            mask_keys,
            jit_compile=scope is JitScope.GRADIENTS,
            xla_on_cpu=compiles and alone and is_on_cpu(placed.strategy),
            noise=spec.noise_scale,
            squares=placed.optimizer is not None and placed.optimizer.rounds_as_keras,
        )
        self.dtype, self.trainable = self._reduction.dtype, self._reduction.trainable
        self.state: list[Any] = []
        self._prepared = False
        self._check: PartitionCheck | None = None
        if partition.virtual_replicas is not None or partition.replicas > 1:
            # Grappler would gather additions and products into others of another order, and not alike on every device.
            keep_additions_in_order()

    def prepare(self, batch: Batch, training: bool) -> None:
        """Makes loss and metric objects for batches of a spec, before any replica's own trace needs them.

        Raises:
            ConfigError: a loss or metric that cannot be cut, or does not fit the outputs.
        """
        del training
        if self._prepared:
            return
        check_targets(self._keras_model, batch)
        check_dense(batch)
        names: list[str] = []

        def build(batch: Batch) -> Any:
            x, y, sample_weight = data_of(batch)
            outputs = self.model(x, training=False)
            names[:], _ = flatten_outputs(outputs, getattr(self.model, "output_names", None))
            model = self._keras_model
            if model._compile_loss is not None and not self._reduction.has_own_loss:
                model._compile_loss(y, outputs, sample_weight)
            if model._compile_metrics is not None:
                model._compile_metrics.update_state(y, outputs, sample_weight)
            return tf.constant(0)

        try:
            # Never run: Keras's objects are only to see the outputs once.
            graph_of(build, batch[:3])
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"the loss or a metric does not fit the model's outputs: {error}") from error
        if self._reduction.has_own_loss:
            if self._partition.replicas > 1 and self._keras_model._compile_loss is not None:
                raise ConfigError(
                    f"{type(self.model).__name__}.compute_loss may use the compiled loss, which Keras divides by the "
                    "number of replicas: use one device, or compile without a loss"
                )
            self.loss_terms.stand_for_own_loss()
        else:
            self.loss_terms.resolve(self._keras_model._compile_loss, names)
        self._metrics.resolve(self._keras_model._compile_metrics, names)
        self._refuse_other_metrics()
        if self._partition.num_microbatches > 1 and not self._partition.static:
            self._check = PartitionCheck(self.model, self._keras_model, self.loss_terms, self._metrics, self._partition)
        self._prepared = True

    def train(self, batch: Batch) -> tuple[Any, Any]:
        """Makes one update; every replica returns the same, so the first one's will do."""
        optimizer = self.optimizer
        assert optimizer is not None
        first = self._strategy.experimental_local_results
        holds = tf.constant(True) if self._check is None else self._check.holds(batch[:3])
        if not optimizer.across_replicas:
            results = self._strategy.run(self._update_on_replica, args=(batch, holds))
            report, goes_on = (first(result)[0] for result in results)
            return report, goes_on
        *results, means = self._strategy.run(self._gradients_on_replica, args=(batch, holds))
        report, loss_finite, finite = (first(result)[0] for result in results)
        means = [None if mean is None else first(mean)[0] for mean in means]

        def update() -> Any:
            optimizer.apply(means)
            return tf.constant(0)

        if means:
            tf.cond(finite, update, lambda: tf.constant(0))
        return reports.after_update(report, tf.constant(False), finite), self.goes_on(loss_finite, finite)

    def score(self, batch: Batch) -> Any:
        """The report of a batch, with the weights as they are, without what only training gives."""
        report = self._strategy.run(self._score_on_replica, args=(batch,))
        return self._strategy.experimental_local_results(report)[0]

    def begin(self) -> None:
        """Begins an epoch: the loop keeps the sums."""
        if self._check is not None and self.optimizer is not None:
            self._check.begin()

    def check(self) -> None:
        """Raises if an update was not made because the batch cannot be cut.

        Raises:
            ConfigError: a loss or a metric that does not add up.
        """
        if self._check is not None:
            self._check.raise_what_was_found()

    def logs(self, sums: np.ndarray) -> dict[str, Any]:
        """Keras's logs from the sum of reports: its metrics' values in the state that the sums come to."""
        model, total_of = self._keras_model, ReportView(sums, self._noise)
        scores = total_of.scores(len(self.loss_terms.weights))
        values = list(self._metrics.values(scores.of_metrics))
        means = [(model._loss_tracker, scores.weighted_loss, total_of.examples)]
        if model._compile_loss is not None:
            # Keras's means of the outputs' losses count every batch alike.
            losses = zip(model._compile_loss.metrics, scores.of_outputs, strict=False)
            means += [(tracker, loss, scores.batches) for tracker, loss in losses]
        for tracker, total, count in means:
            values += [
                (tracker.total, tf.constant(total, tracker.dtype)),
                (tracker.count, tf.constant(count, tracker.dtype)),
            ]
        with keras.StatelessScope(state_mapping=values):
            return keras_objects.results(model)

    def batch_logs(self, sums: np.ndarray) -> dict[str, Any]:
        """Returns the logs that Keras shows after a batch: those so far."""
        return self.logs(sums)

    @property
    def width(self) -> int:
        """See the class."""
        metrics = sum(int(np.prod(variable.shape)) for variable in self._metrics.variables)
        return reports.width(len(self.loss_terms.weights), metrics, self._noise)

    def take_up(self, sums: tuple[float, ...]) -> tuple[float, ...]:
        """The sum of an epoch's reports so far, from a run whose batches may have been cut otherwise."""
        if len(sums) == self.width:
            return sums
        warnings.warn(OF_THE_REST, stacklevel=4)
        return (0.0,) * self.width

    def first_gradients(self, batch: Batch) -> Any:
        """The sum of a batch's mean gradients' first entries, in the replica context: for timing them alone."""
        _, _, _, means = self._gradients_on_replica(batch)
        return tf.add_n(
            [tf.cast(tf.reshape(values_of(mean), [-1])[0], tf.float32) for mean in means if mean is not None]
        )

    def _refuse_other_metrics(self) -> None:
        model = self._keras_model
        compiled = [model._loss_tracker, model._compile_metrics]
        compiled += [] if model._compile_loss is None else model._compile_loss.metrics
        others = [metric.name for metric in model.metrics if not any(metric is known for known in compiled)]
        kind = type(model)
        own = [
            name for name in ("compute_metrics", "test_step") if getattr(kind, name) is not getattr(keras.Model, name)
        ]
        what = [f"the metric {name!r} that the model or a layer updates" for name in others]
        what += [f"{kind.__name__}.{name}" for name in own]
        if what:
            raise ConfigError(
                f"{what[0]} sees parts of a batch and not the whole: use one device, without virtual_replicas, "
                "micro_batch_size or pad_batches"
            )

    def _update_on_replica(self, batch: Batch, holds: Tensor) -> tuple[Any, Any]:
        """theta <- theta - alpha (1/b) sum_i grad L(theta; x_i, y_i), on every replica alike."""
        total = self._total(batch)  # the sums over rows, microbatches and replicas, and b among them
        means = self._means(total)  # (1/b) sum: the one division that is ours
        report, loss_finite, finite = self._judged(total, means, holds)
        clipped = self.apply_if(finite, means)  # optimizers/optimizer.py: clip, moments, step, decay, one write
        return reports.after_update(report, clipped, finite), self.goes_on(loss_finite, finite)

    def _gradients_on_replica(self, batch: Batch, holds: Tensor = True) -> tuple[Any, Any, Any, list[Any]]:
        """(report, whether the loss is finite, whether all is, mean gradients) of a batch; the state is brought on."""
        total = self._total(batch)
        means = self._means(total)
        return (*self._judged(total, means, holds), means)

    def _total(self, batch: Batch) -> _Total:
        optimizer, reduction = self.optimizer, self._reduction
        assert optimizer is not None
        scale = self._scale_of_sums(batch)
        before = [tf.identity(v) for v in reduction.merged]
        sums = reduction.training(batch, before, tf.identity(optimizer.iterations), scale)
        penalty, penalty_gradients = reduction.penalty()
        return _Total(*sums, penalty, penalty_gradients, scale, before)

    def _scale_of_sums(self, batch: Batch) -> Any:
        """The factor on the loss, which Keras puts on a mean: on a sum of so many rows the gradients would overflow.

        It is divided by the next power of two from the number of rows, which changes no bit of a gradient in range.
        """
        scale, rows = self.scale(), whole_batch(batch)[1]
        if self._is_one or isinstance(scale, tuple):
            return scale
        exponent = tf.reduce_sum(tf.cast(tf.constant([2**k for k in range(31)]) < rows, tf.int64))
        return scale / tf.cast(tf.bitwise.left_shift(tf.constant(1, tf.int64), exponent), scale.dtype)

    def _judged(self, total: _Total, means: list[Any], holds: Tensor) -> tuple[Any, Any, Any]:
        """(report, whether the loss is finite, whether all is) of a batch; the state is brought on.

        A batch that cannot be cut (`holds` False) counts as one that is not finite.
        """
        report, loss = self._report(total.scores, total.penalty)
        whole = [mean for mean in means if mean is not None]
        square = square_of(whole, self.dtype) if whole and not self.selects else None
        if self._noise:
            if square is None or any(gradient is not None for gradient in total.penalty_gradients):
                of_loss = self._reduction.square_of_mean(total.gradients, total.scores.counts, total.scale)
            else:
                of_loss = square
            report = reports.with_noise(report, self._noise_of(of_loss, total.scores))
        loss_finite, finite = self.verdict(loss, whole, square, holds)
        self._bring_state_on(total, self.bring_on(loss_finite, finite))
        return report, loss_finite, finite

    def _bring_state_on(self, total: _Total, stays: Any) -> None:
        """Moves the state by the mean of what the microbatches moved it by; not at all where `stays` is False."""
        for variable, value, moved in zip(self._reduction.merged, total.before, total.state, strict=True):
            # With a single part the state that it left is the batch's, to the bit.
            left = variable if self._is_one else value + tf.cast(moved / total.scores.rows, variable.dtype)
            variable.assign(tf.where(stays, left, value))

    @property
    def _is_one(self) -> bool:
        return self._partition.num_microbatches == 1

    def _noise_of(self, square: Tensor, scores: Scores) -> Any:
        """`[tr(Sigma), |G|^2]` from that of the batch's mean gradient, both 0 for one part alone: see `noise_scale`."""
        parts = tf.minimum(tf.cast(self._partition.num_microbatches, scores.rows.dtype), scores.rows)
        noise = (scores.squares[0] - scores.rows * square) / tf.maximum(parts - 1.0, 1.0)
        both = tf.stack([noise, square - noise / scores.rows])
        return tf.where(parts > 1.0, both, tf.zeros_like(both))

    def _means(self, total: _Total) -> list[Any]:
        """The mean gradient of each trainable variable, None if it has none.

        A single microbatch gives the gradient of the mean loss, which is divided already: adding up is spared.
        """
        dtype, counts, scale = self.dtype, total.scores.counts, total.scale
        means: list[Any] = [None if g is None else tf.cast(g, dtype) for g in total.penalty_gradients]
        for number, (present, sums) in enumerate(zip(self._reduction.present, total.gradients, strict=True)):
            for i, gradient_sum in zip(present, sums, strict=True):
                mean = gradient_sum if self._is_one else tf.math.divide_no_nan(gradient_sum, counts[number])
                if not isinstance(scale, tuple):
                    mean /= tf.cast(scale, dtype)
                means[i] = mean if means[i] is None else mean + means[i]
        self._add_squares(means, total)
        return means

    def _add_squares(self, means: list[Any], total: _Total) -> None:
        """Puts beside the mean gradient of an embedding the squares of every occurrence of its rows, as Keras has them.

        Where something dense is added to the rows Keras squares the sum.
        """
        for number, (repeated, sums) in enumerate(zip(self._reduction.repeated, total.squares, strict=True)):
            for i, square in zip(repeated, sums, strict=True):
                several = sum(i in present for present in self._reduction.present) > 1
                if total.penalty_gradients[i] is not None or several:
                    continue
                if not self._is_one:
                    square = tf.math.divide_no_nan(square, total.scores.counts[number] ** 2)
                if not isinstance(total.scale, tuple):
                    square /= tf.cast(total.scale, self.dtype) ** 2
                means[i] = WithSquare(means[i], square)

    def _score_on_replica(self, batch: Batch) -> Any:
        penalty, _ = self._reduction.penalty(gradients=False)
        return self._report(self._reduction.scoring(batch), penalty)[0]

    def _report(self, scores: Scores, penalty: Tensor) -> tuple[Any, Any]:
        rows, means = scores.rows, tf.math.divide_no_nan(scores.numerators, scores.denominators)
        loss = self.loss_terms.mean(scores.numerators, scores.denominators) + scores.added / rows + penalty
        return reports.of_batch(loss, rows, means, scores.metrics), loss
