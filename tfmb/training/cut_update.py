"""An update from a batch that is cut into parts: sums over them, one division, the same on every device."""

import warnings
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.distribution import is_on_cpu
from tfmb.errors import ConfigError
from tfmb.optimizers import Optimizer
from tfmb.optimizers.loss_scale import LossScale
from tfmb.optimizers.sparse import WithSquare, values_of
from tfmb.training import compiled as keras_objects
from tfmb.training.compilation import Compiled
from tfmb.training.cut_check import CutCheck
from tfmb.training.metrics import Metrics
from tfmb.training.numerics import keep_additions_in_order
from tfmb.training.objective import Objective
from tfmb.training.outputs import flatten_outputs
from tfmb.training.parts import Cut, check_dense
from tfmb.training.sums import BatchSums, Scores
from tfmb.training.update import OF_THE_REST, Update, check_targets, data_of, square_of
from tfmb.training.written import graph_of

__all__ = ["CutUpdate"]


class CutUpdate(Update):
    """Trains and scores batches that are cut into parts, in the cross-replica context.

    Args:
        model: its variables on the strategy's devices.
        keras_model: the user's model, compiled: the same, or the one that `model` is a copy of.
        optimizer: built for the model's trainable variables; None where the model is only scored.
        strategy: where.
        mask_keys: int64 variable, `layers.mask_keys` of the seed for `len(dropouts(model))` layers.
        cut: how a batch is cut.
        loss_scale: built; None for none.
        compiled: what XLA compiles.
        noise: whether reports tell of the noise in gradients: see `noise_scale`.

    Attributes:
        width: how many numbers a report has: the loss, the examples, the loss times that number, 1, each output's
            loss, what the metrics add up, with `noise` the estimates of tr(Sigma) and |G|^2, whether gradients were
            clipped, and whether the update was made. Known after `prepare`.
        dtype: of reports.
        state: nothing: what a step writes besides weights is the model's.
    """

    def __init__(
        self,
        model: Any,
        keras_model: Any,
        optimizer: Optimizer | None,
        strategy: Any,
        mask_keys: Any,
        cut: Cut,
        loss_scale: LossScale | None,
        compiled: Compiled,
        noise: bool,
    ) -> None:
        super().__init__(optimizer, loss_scale, compiled)
        self.model, self._keras_model, self._strategy, self._cut, self._noise = model, keras_model, strategy, cut, noise
        self.objective, self._metrics = Objective(), Metrics()
        compiles_model = compiled in (Compiled.GRADIENTS, Compiled.STEP, Compiled.CALL)
        self._sums = BatchSums(
            model,
            self.objective,
            self._metrics,
            cut,
            mask_keys,
            jit_compile=compiled is Compiled.GRADIENTS,
            # With parts the bits may not depend on the number of devices, and replicas share the model's layers.
            xla_on_cpu=compiles_model and cut.parts is None and cut.replicas == 1 and is_on_cpu(strategy),
            noise=noise,
            squares=optimizer is not None and optimizer.rounds_as_keras,
        )
        self.dtype, self.trainable = self._sums.dtype, self._sums.trainable
        self.state: list[Any] = []
        self._prepared = False
        self._check: CutCheck | None = None
        if cut.parts is not None or cut.replicas > 1:
            # Grappler would gather additions and products into others of another order, and not alike on every device.
            keep_additions_in_order()

    def prepare(self, batch: Any, training: bool) -> None:
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

        def build(batch: Any) -> Any:
            x, y, sample_weight = data_of(batch)
            outputs = self.model(x, training=False)
            names[:], _ = flatten_outputs(outputs, getattr(self.model, "output_names", None))
            model = self._keras_model
            if model._compile_loss is not None and not self._sums.has_own_loss:
                model._compile_loss(y, outputs, sample_weight)
            if model._compile_metrics is not None:
                model._compile_metrics.update_state(y, outputs, sample_weight)
            return tf.constant(0)

        try:
            # Never run: Keras's objects are only to see the outputs once.
            graph_of(build, batch[:3])
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"the loss or a metric does not fit the model's outputs: {error}") from error
        if self._sums.has_own_loss:
            if self._cut.replicas > 1 and self._keras_model._compile_loss is not None:
                raise ConfigError(
                    f"{type(self.model).__name__}.compute_loss may use the compiled loss, which Keras divides by the "
                    "number of replicas: use one device, or compile without a loss"
                )
            self.objective.stand_for_own_loss()
        else:
            self.objective.resolve(self._keras_model._compile_loss, names)
        self._metrics.resolve(self._keras_model._compile_metrics, names)
        self._refuse_other_metrics()
        if self._cut.all_parts > 1 and not self._cut.static:
            self._check = CutCheck(self.model, self._keras_model, self.objective, self._metrics, self._cut)
        self._prepared = True

    def train(self, batch: Any) -> tuple[Any, Any]:
        """One update; every replica returns the same, so the first one's will do."""
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
        made = tf.cast(finite, self.dtype)
        return tf.concat([report, [0.0 * made, made]], 0), self.goes_on(loss_finite, finite)

    def score(self, batch: Any) -> Any:
        """The report of a batch, with the weights as they are, without what only training gives."""
        report = self._strategy.run(self._score_on_replica, args=(batch,))
        return self._strategy.experimental_local_results(report)[0]

    def begin(self) -> None:
        """Before an epoch: sums are kept by the loop."""
        if self._check is not None and self.optimizer is not None:
            self._check.begin()

    def check(self) -> None:
        """After an update that was not made: raises where that is because the batch cannot be cut.

        Raises:
            ConfigError: a loss or a metric that does not add up.
        """
        if self._check is not None:
            self._check.raise_what_was_found()

    def logs(self, sums: np.ndarray) -> dict[str, Any]:
        """Keras's logs from the sum of reports: its metrics' values in the state that the sums come to."""
        model, rows = self._keras_model, sums[1]
        after = 4 + len(self.objective.weights)
        values = list(self._metrics.values(sums[after:]))
        means = [(model._loss_tracker, sums[2], rows)]
        if model._compile_loss is not None:
            # Keras's means of the outputs' losses count every batch alike.
            losses = zip(model._compile_loss.metrics, sums[4:after], strict=False)
            means += [(tracker, loss, sums[3]) for tracker, loss in losses]
        for tracker, total, count in means:
            values += [
                (tracker.total, tf.constant(total, tracker.dtype)),
                (tracker.count, tf.constant(count, tracker.dtype)),
            ]
        with keras.StatelessScope(state_mapping=values):
            return keras_objects.results(model)

    @property
    def width(self) -> int:
        """See the class."""
        metrics = sum(int(np.prod(variable.shape)) for variable in self._metrics.variables)
        return 4 + len(self.objective.weights) + metrics + 2 * self._noise + 2

    def take_up(self, sums: tuple[float, ...]) -> tuple[float, ...]:
        """The sum of an epoch's reports so far, from a run whose batches may have been cut otherwise."""
        if len(sums) == self.width:
            return sums
        warnings.warn(OF_THE_REST, stacklevel=4)
        return (0.0,) * self.width

    def first_gradients(self, batch: Any) -> Any:
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
                "micro_batch_size or static_shapes"
            )

    def _update_on_replica(self, batch: Any, holds: Any) -> tuple[Any, Any]:
        report, loss_finite, finite, means = self._gradients_on_replica(batch, holds)
        clipped = self.apply_if(finite, means)
        made = tf.cast(finite, self.dtype)
        goes_on = self.goes_on(loss_finite, finite)
        return tf.concat([report, [tf.cast(clipped, self.dtype) * made, made]], 0), goes_on

    def _gradients_on_replica(self, batch: Any, holds: Any = True) -> tuple[Any, Any, Any, list[Any]]:
        """(report, whether the loss is finite, whether all is, mean gradients) of a batch; the state is brought on.

        A batch that cannot be cut (`holds` False) counts as one that is not finite.
        """
        optimizer, sums = self.optimizer, self._sums
        assert optimizer is not None
        scale = self.scale()
        before = [tf.identity(v) for v in sums.merged]
        gradients, scores, state, squares = sums.training(batch, before, tf.identity(optimizer.iterations), scale)
        penalty, penalty_gradients = sums.penalty()
        report, loss = self._report(scores, penalty)
        means = self._means(gradients, scores.counts, penalty_gradients, scale)
        self._add_squares(means, squares, scores.counts, penalty_gradients, scale)
        whole = [mean for mean in means if mean is not None]
        square = square_of(whole, sums.dtype) if whole and not self.selects else None
        if self._noise:
            if square is None or any(gradient is not None for gradient in penalty_gradients):
                without_penalty = sums.square_of_mean(gradients, scores.counts, scale)
            else:
                without_penalty = square
            report = tf.concat([report, self._noise_of(without_penalty, scores)], 0)
        loss_finite, finite = self.verdict(loss, whole, square, holds)
        stays = self.bring_on(loss_finite, finite)
        for variable, value, total in zip(sums.merged, before, state, strict=True):
            # With a single part the state that it left is the batch's, to the bit.
            left = variable if self._cut.all_parts == 1 else value + tf.cast(total / scores.rows, variable.dtype)
            variable.assign(tf.where(stays, left, value))
        return report, loss_finite, finite, means

    def _noise_of(self, square: Any, scores: Scores) -> Any:
        """`[tr(Sigma), |G|^2]` from that of the batch's mean gradient, both 0 for one part alone: see `noise_scale`."""
        parts = tf.minimum(tf.cast(self._cut.all_parts, scores.rows.dtype), scores.rows)
        noise = (scores.squares[0] - scores.rows * square) / tf.maximum(parts - 1.0, 1.0)
        both = tf.stack([noise, square - noise / scores.rows])
        return tf.where(parts > 1.0, both, tf.zeros_like(both))

    def _means(self, gradients: list[list[Any]], counts: Any, extra: list[Any], scale: Any) -> list[Any]:
        """The mean gradient of each trainable variable, None where it has none."""
        dtype = self.dtype
        means: list[Any] = [None if g is None else tf.cast(g, dtype) for g in extra]
        for number, (present, totals) in enumerate(zip(self._sums.present, gradients, strict=True)):
            for i, total in zip(present, totals, strict=True):
                mean = total if self._cut.all_parts == 1 else tf.math.divide_no_nan(total, counts[number])
                if not isinstance(scale, tuple):
                    mean /= tf.cast(scale, dtype)
                means[i] = mean if means[i] is None else mean + means[i]
        return means

    def _add_squares(self, means: list[Any], squares: Any, counts: Any, extra: list[Any], scale: Any) -> None:
        """Puts beside the mean gradient of an embedding the squares of every occurrence of its rows, as Keras has them.

        Where something dense is added to the rows Keras squares the sum.
        """
        for number, (repeated, totals) in enumerate(zip(self._sums.repeated, squares, strict=True)):
            for i, total in zip(repeated, totals, strict=True):
                if extra[i] is not None or sum(i in present for present in self._sums.present) > 1:
                    continue
                square = total if self._cut.all_parts == 1 else tf.math.divide_no_nan(total, counts[number] ** 2)
                if not isinstance(scale, tuple):
                    square /= tf.cast(scale, self.dtype) ** 2
                means[i] = WithSquare(means[i], square)

    def _score_on_replica(self, batch: Any) -> Any:
        penalty, _ = self._sums.penalty(gradients=False)
        return self._report(self._sums.scoring(batch), penalty)[0]

    def _report(self, scores: Scores, penalty: Any) -> tuple[Any, Any]:
        rows, means = scores.rows, tf.math.divide_no_nan(scores.numerators, scores.denominators)
        loss = self.objective.mean(scores.numerators, scores.denominators) + scores.added / rows + penalty
        return tf.concat([tf.stack([loss, rows, loss * rows, tf.ones_like(rows)]), means, scores.metrics], 0), loss
