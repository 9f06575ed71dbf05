"""The compiled functions of the loop: draw a batch, add it up, divide once, update; many batches a call."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from tfmb.backend import keras, tf
from tfmb.distribution import is_on_cpu, makes_copies
from tfmb.layers import mask_keys
from tfmb.optimizers import Optimizer
from tfmb.optimizers.loss_scale import LossScale
from tfmb.training.compilation import Compiled
from tfmb.training.metrics import Metrics
from tfmb.training.objective import Objective
from tfmb.training.outputs import flatten_outputs, per_output
from tfmb.training.parts import Cut
from tfmb.training.rows import Arrays, gather
from tfmb.training.sums import BatchSums, Scores, dropouts, square_of
from tfmb.training.traces import Traces

__all__ = ["Steps"]


class Steps:
    """The compiled functions that train and score a model, many batches a call.

    Args:
        model: a built `keras.Model` whose variables were made in the strategy's scope.
        optimizer: built for the model's trainable variables; None where the model is only scored.
        objective: the loss.
        metrics: the metrics.
        strategy: a one-device or mirrored strategy.
        cut: how a batch is cut into parts; None for one part a device.
        seed: decides the masks of `tfmb.layers.Dropout`.
        loss_scale: built; None where no gradient is in float16.
        compiled: what XLA compiles: see `Compiled`.
        noise: whether reports tell of the noise in gradients: see `noise_scale`.

    Attributes:
        train: `(iterator, num_steps) -> (reports, finite)`: takes `num_steps` (an int32 scalar tensor) batches
            `(x, y, sample_weight)` from the iterator and updates the weights after each. `reports` is
            `[steps done, 3 + losses + metric sums + 2]`, a row for each step: the batch's loss, its number of
            examples, then the loss and each output's loss times that number, what the metrics add up, with `noise` the
            estimates of tr(Sigma) and |G|^2, whether gradients were clipped, and whether the update was made (0 or 1: a
            loss scale skips one that overflowed).
            `finite` is False where the last row's loss or gradients were not: that update was not made, no further
            batch drawn.
        train_rows: `(arrays, numbers, count) -> (reports, finite, steps done)`: the same with batches of `Rows`.
        evaluate: `(iterator, num_steps) -> reports`, with the weights as they are, without what only training gives.
        operations: of an update, about; known once `train_rows` was traced.
        traces: of the functions that train.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Optimizer | None,
        objective: Objective,
        metrics: Metrics,
        strategy: Any,
        *,
        cut: Cut | None = None,
        seed: int = 0,
        loss_scale: LossScale | None = None,
        compiled: Compiled = Compiled.NOTHING,
        noise: bool = False,
    ) -> None:
        cut = Cut(replicas=strategy.num_replicas_in_sync) if cut is None else cut
        self.model = model
        self.optimizer = optimizer
        self.objective = objective
        self.metrics = metrics
        self.strategy = strategy
        with strategy.scope() if makes_copies(strategy) else contextlib.nullcontext():
            self._mask_keys = tf.Variable(mask_keys(seed, len(dropouts(model))), trainable=False, name="mask_keys")
        compiles_model = compiled in (Compiled.GRADIENTS, Compiled.STEP, Compiled.CALL)
        self._sums = BatchSums(
            model,
            objective,
            metrics,
            cut,
            self._mask_keys,
            jit_compile=compiled is Compiled.GRADIENTS,
            # With parts the bits may not depend on the number of devices, and replicas share the model's layers.
            xla_on_cpu=compiles_model and cut.parts is None and cut.replicas == 1 and is_on_cpu(strategy),
            noise=noise,
        )
        self._noise = noise
        self._cut = cut
        self.loss_scale = loss_scale
        self._prepared = False
        self.operations = 0
        if cut.parts is not None or cut.replicas > 1:
            # Grappler would gather additions and products into others of another order, and not alike on every device.
            tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
        self._apply: Any = None if optimizer is None else optimizer.apply
        if compiled is Compiled.UPDATE:
            self._apply = tf.function(self._apply, jit_compile=True, autograph=False)
        self._selects = compiled in (Compiled.STEP, Compiled.CALL)
        # A function of its own: how long a report is must be known before the loop over batches.
        self._work = tf.function(
            _own(self._train_batch), jit_compile=compiled is Compiled.STEP or None, autograph=False
        )
        self.train = tf.function(_own(self._train), autograph=False)
        self._rows = tf.function(_own(self._train_rows), jit_compile=compiled is Compiled.CALL or None, autograph=False)
        self._concrete_rows: dict[str, Any] = {}
        self.evaluate = tf.function(_own(self._evaluate), autograph=False)
        self._compiles_calls = compiled is Compiled.CALL
        self.traces = Traces([self.train, self._rows, self._work], by_shape=compiles_model and not cut.static)

    def prepare(self, iterator: Any) -> None:
        """Makes the loss and metric objects for the batches of an iterator, once.

        Called before the first call of `train` or `evaluate` it spares that one a second trace: objects made while a
        function is traced make TensorFlow trace it again.
        """
        self._resolve_once(iterator.element_spec)

    def use_seed(self, seed: int) -> None:
        """From here on masks are another seed's; nothing is traced again."""
        self._mask_keys.assign(mask_keys(seed, self._mask_keys.shape[0]))

    @property
    def trainable(self) -> list[Any]:
        """The raw trainable variables."""
        return self._sums.trainable

    def first_gradients(self, batch: Any) -> Any:
        """The sum of a batch's mean gradients' first entries, in the replica context: for timing them alone."""
        _, _, _, means = self._gradients_on_replica(batch)
        return tf.add_n([tf.cast(tf.reshape(mean, [-1])[0], tf.float32) for mean in means if mean is not None])

    def _train(self, iterator: Any, num_steps: Any) -> tuple[Any, Any]:
        self.prepare(iterator)
        return self._repeat(iterator, num_steps, self._work)

    def train_rows(self, arrays: Arrays, numbers: Any, count: Any) -> tuple[Any, Any, Any]:
        """See the class."""
        spec = _of_any_size(arrays)
        if (traced := self._concrete_rows.get(str(spec))) is None:
            # One trace for batches and data of any size; XLA compiles for each all the same.
            rows, one = tf.TensorSpec([None, None], tf.int64), tf.TensorSpec([], tf.int32)
            traced = self._concrete_rows[str(spec)] = self._rows.get_concrete_function(spec, rows, one)
        found: tuple[Any, Any, Any] = traced(arrays, tf.constant(numbers), tf.constant(count, tf.int32))
        self.traces.met([numbers.shape if self._compiles_calls else numbers.shape[1]])
        return found

    def _train_rows(self, arrays: Arrays, numbers: Any, count: Any) -> tuple[Any, Any, Any]:
        spec = _of_any_size(arrays)
        self._resolve_once(spec)
        work = self._work.get_concrete_function(spec)
        (width,) = work.output_shapes[0].as_list()
        self.operations = len(work.graph.get_operations())

        def body(step: Any, _: Any, reports: Any) -> tuple[Any, Any, Any]:
            report, finite = work(gather(arrays, numbers[step]))
            return (
                step + 1,
                finite,
                tf.tensor_scatter_nd_update(reports, step[tf.newaxis, tf.newaxis], report[tf.newaxis]),
            )

        def more(step: Any, finite: Any, _: Any) -> Any:
            return tf.logical_and(step < count, finite)

        reports = tf.zeros([tf.shape(numbers)[0], width], self._sums.dtype)
        start = (tf.constant(0), tf.constant(True), reports)
        done, finite, reports = tf.while_loop(more, body, start, parallel_iterations=1)
        return reports, finite, done

    def _evaluate(self, iterator: Any, num_steps: Any) -> Any:
        self.prepare(iterator)
        return self._repeat(iterator, num_steps, self._evaluate_batch)[0]

    def _resolve_once(self, batch: Any) -> None:
        """Makes the loss and metric objects for these outputs, before any replica's own trace needs them."""
        if self._prepared:
            return
        x, y = batch[:2]
        names: list[str] = []

        def outputs(inputs: Any) -> Any:
            found, tensors = flatten_outputs(
                self.model(inputs, training=False), getattr(self.model, "output_names", None)
            )
            names[:] = found
            return tensors

        with tf.init_scope():
            y_pred = tf.function(outputs, autograph=False).get_concrete_function(x).structured_outputs
            targets = per_output(y, names, "y")
            if self._sums.has_own_loss:
                self.objective.stand_for_own_loss()
            else:
                self.objective.resolve(names, targets, y_pred)
            self.metrics.resolve(names, targets, y_pred)
        self._prepared = True

    def _repeat(self, iterator: Any, num_steps: Any, work: Any) -> tuple[Any, Any]:
        """Runs `work` on one batch after the other, until one is not finite."""

        def body(step: Any, _: Any, reports: Any) -> tuple[Any, Any, Any]:
            report, finite = work(next(iterator))
            return step + 1, finite, reports.write(step, report)

        def more(step: Any, finite: Any, _: Any) -> Any:
            return tf.logical_and(step < num_steps, finite)

        reports = tf.TensorArray(self._sums.dtype, size=0, dynamic_size=True, infer_shape=False)
        start = (tf.constant(0), tf.constant(True), reports)
        done, finite, reports = tf.while_loop(more, body, start, parallel_iterations=1)
        del done
        return reports.stack(), finite

    def _train_batch(self, batch: Any) -> tuple[Any, Any]:
        """One update, in the cross-replica context. Every replica returns the same, so the first one's will do."""
        optimizer = self.optimizer
        assert optimizer is not None
        first = self.strategy.experimental_local_results
        if not optimizer.across_replicas:
            results = self.strategy.run(self._update_on_replica, args=(batch,))
            report, finite = (first(result)[0] for result in results)
            return report, finite
        *results, means = self.strategy.run(self._gradients_on_replica, args=(batch,))
        report, loss_finite, finite = (first(result)[0] for result in results)
        means = [None if mean is None else first(mean)[0] for mean in means]

        def update() -> Any:
            optimizer.apply(means)
            return tf.constant(0)

        tf.cond(finite, update, lambda: tf.constant(0))
        made = tf.cast(finite, self._sums.dtype)
        return tf.concat([report, [0.0 * made, made]], 0), self._goes_on(loss_finite, finite)

    def _update_on_replica(self, batch: Any) -> tuple[Any, Any]:
        optimizer, dtype = self.optimizer, self._sums.dtype
        assert optimizer is not None
        report, loss_finite, finite, means = self._gradients_on_replica(batch)

        clipped = self._apply_if(finite, means)
        made = tf.cast(finite, dtype)
        return tf.concat([report, [tf.cast(clipped, dtype) * made, made]], 0), self._goes_on(loss_finite, finite)

    def _apply_if(self, finite: Any, means: list[Any]) -> Any:
        """Makes the update, or leaves all as it is; returns whether gradients were clipped."""
        if not self._selects:
            return tf.cond(finite, lambda: self._apply(means), lambda: tf.constant(False))
        assert self.optimizer is not None
        return self.optimizer.apply(means, made=finite)

    def _all_finite(self, gradients: list[Any], square: Any) -> Any:
        """Whether every entry is finite: it is where the sum of squares is; a second look where that is not."""

        def look() -> Any:
            return tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])

        if not gradients:
            return tf.constant(True)
        if self._selects:
            return tf.reduce_all([tf.reduce_all(tf.math.is_finite(_row_sums(gradient))) for gradient in gradients])
        return tf.cond(tf.math.is_finite(square), lambda: tf.constant(True), look)

    def _goes_on(self, loss_finite: Any, finite: Any) -> Any:
        """Whether to draw on: an overflow ends the run, but for one that a smaller loss scale may mend."""
        if self.loss_scale is None:
            return finite
        # Read after the scale was updated: at 1 there is nothing left to take from it.
        return tf.logical_and(loss_finite, tf.logical_or(finite, self.loss_scale.scale > 1.0))

    def _gradients_on_replica(self, batch: Any) -> tuple[Any, Any, Any, list[Any]]:
        """(report, whether the loss is finite, whether all is, mean gradients) of a batch; the state is brought on."""
        optimizer, sums = self.optimizer, self._sums
        assert optimizer is not None
        scale = () if self.loss_scale is None else tf.identity(self.loss_scale.scale)
        before = [tf.identity(v) for v in sums.merged]
        gradients, scores, state = sums.training(batch, before, tf.identity(optimizer.iterations), scale)
        penalty, penalty_gradients = sums.penalty()
        report, loss = self._report(scores, penalty)
        means = self._means(gradients, scores.counts, penalty_gradients, scale)
        whole = [mean for mean in means if mean is not None]
        square = square_of(whole, sums.dtype) if whole and not self._selects else None
        if self._noise:
            if square is None or any(gradient is not None for gradient in penalty_gradients):
                without_penalty = sums.square_of_mean(gradients, scores.counts, scale)
            else:
                without_penalty = square
            report = tf.concat([report, self._noise_of(without_penalty, scores)], 0)
        loss_finite = tf.math.is_finite(loss)
        finite = tf.logical_and(loss_finite, self._all_finite(whole, square))
        if self.loss_scale is not None:
            self.loss_scale.update(finite)
        for variable, value, total in zip(sums.merged, before, state, strict=True):
            # With a single part the state that it left is the batch's, to the bit.
            left = variable if self._cut.all_parts == 1 else value + tf.cast(total / scores.rows, variable.dtype)
            variable.assign(tf.where(finite, left, value))
        return report, loss_finite, finite, means

    def _noise_of(self, square: Any, scores: Scores) -> Any:
        """`[tr(Sigma), |G|^2]` from that of the batch's mean gradient, both 0 for one part alone: see `noise_scale`."""
        parts = tf.minimum(tf.cast(self._cut.all_parts, scores.rows.dtype), scores.rows)
        noise = (scores.squares[0] - scores.rows * square) / tf.maximum(parts - 1.0, 1.0)
        both = tf.stack([noise, square - noise / scores.rows])
        return tf.where(parts > 1.0, both, tf.zeros_like(both))

    def _means(self, gradients: list[list[Any]], counts: Any, extra: list[Any], scale: Any) -> list[Any]:
        """The mean gradient of each trainable variable, None where it has none."""
        dtype = self._sums.dtype
        means: list[Any] = [None if g is None else tf.cast(g, dtype) for g in extra]
        for number, (present, totals) in enumerate(zip(self._sums.present, gradients, strict=True)):
            for i, total in zip(present, totals, strict=True):
                mean = total if self._cut.all_parts == 1 else tf.math.divide_no_nan(total, counts[number])
                if self.loss_scale is not None:
                    mean /= tf.cast(scale, dtype)
                means[i] = mean if means[i] is None else mean + means[i]
        return means

    def _evaluate_batch(self, batch: Any) -> tuple[Any, Any]:
        report = self.strategy.run(self._score_on_replica, args=(batch,))
        return self.strategy.experimental_local_results(report)[0], tf.constant(True)

    def _score_on_replica(self, batch: Any) -> Any:
        penalty, _ = self._sums.penalty(gradients=False)
        return self._report(self._sums.scoring(batch), penalty)[0]

    def _report(self, scores: Scores, penalty: Any) -> tuple[Any, Any]:
        rows, means = scores.rows, tf.math.divide_no_nan(scores.numerators, scores.denominators)
        loss = self.objective.mean(scores.numerators, scores.denominators) + scores.added / rows + penalty
        return tf.concat([tf.stack([loss, rows, loss * rows]), means * rows, scores.metrics], 0), loss


def _of_any_size(arrays: Arrays) -> Arrays:
    """The shapes of arrays with any number of rows."""
    spec: Arrays = keras.tree.map_structure(lambda a: tf.TensorSpec([None, *a.shape[1:]], a.dtype), arrays)
    return spec


def _row_sums(tensor: Any) -> Any:
    """Sums that are finite where all entries are: scaled, so that none overflows. One fast pass in XLA."""
    columns = tensor.shape[-1] if tensor.shape.rank else 1
    return tf.linalg.matvec(tf.reshape(tensor, [-1, columns]), tf.fill([columns], tf.cast(2.0**-30, tensor.dtype)))


def _own(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method as a function that TensorFlow counts the traces of by itself.

    It counts methods by their code, over all objects: a search of many models would be warned of retracing that there
    is none of.
    """
    return functools.partial(method)
