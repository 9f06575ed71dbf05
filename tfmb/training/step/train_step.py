"""The compiled functions of the loop: draw a batch, make an update of it; many batches a call."""

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from tfmb.backend import tf
from tfmb.choices import JitScope
from tfmb.distribution.strategy import is_on_cpu, makes_copies
from tfmb.layers import mask_keys
from tfmb.optimizers.loss_scale import LossScale
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.training.input.array_pipeline import Arrays, gather, spec_of
from tfmb.training.input.elements import of_any_size
from tfmb.training.keras_api.compile_args import compiled_with
from tfmb.training.step.model_state import dropouts
from tfmb.training.step.own_update import OwnUpdate
from tfmb.training.step.partitioned_update import PartitionedUpdate
from tfmb.training.step.spec import PlacedModel, StepSpec
from tfmb.training.step.whole_update import WholeUpdate
from tfmb.types import Batch, Dataset, Strategy, Tensor

__all__ = ["Steps", "Traces", "stays_whole"]


class Steps:
    """The compiled functions that train and score a model, many batches a call.

    Args:
        placed: the model, on its devices.
        spec: the options of the step.
        loss_scale: built; None if the loss is not scaled to keep float16 gradients in range.

    Attributes:
        train: `(iterator, num_steps) -> (reports, finite)`: takes `num_steps` (an int32 scalar tensor) batches
            `(x, y, sample_weight)` from the iterator and updates the weights after each. `reports` has a row for each
            step: the batch's loss, its number of examples, what else the update reports, and last whether gradients
            were clipped and whether the update was made (0 or 1: a loss scale skips one that overflowed).
            `finite` is False if the last row's loss or gradients were not: that update was not made, no further
            batch drawn (unless the recipe `lets_diverge`).
        train_rows: `(arrays, numbers, count) -> (reports, finite, steps done)`: the same with batches of `Rows`.
        evaluate: `(iterator, num_steps) -> reports`, with the weights as they are.
        update: makes an update of one batch, and scores one.
        operations: of an update, about; known once `train_rows` was traced.
        traces: of the functions that train.
    """

    def __init__(self, placed: PlacedModel, spec: StepSpec, loss_scale: LossScale | None = None) -> None:
        spec.loss_and_metrics.check()
        self.placed, self.spec, self.loss_scale = placed, spec, loss_scale
        strategy, scope = placed.strategy, spec.jit_scope
        with strategy.scope() if makes_copies(strategy) else contextlib.nullcontext():
            keys = mask_keys(spec.seed, len(dropouts(placed.model)))
            self._mask_keys = tf.Variable(keys, trainable=False, name="mask_keys")
        compiles_model = scope in (JitScope.GRADIENTS, JitScope.STEP, JitScope.CALL)
        self.update: WholeUpdate | PartitionedUpdate = self._make_update(compiles_model)
        self.update.lets_diverge = spec.lets_diverge
        self.operations = 0
        # A function of its own: how long a report is must be known before the loop over batches.
        self._work = tf.function(_own(self._train_batch), jit_compile=scope is JitScope.STEP or None, autograph=False)
        self._train_function = tf.function(_own(self._train), autograph=False)
        self._rows = tf.function(_own(self._train_rows), jit_compile=scope is JitScope.CALL or None, autograph=False)
        self._concrete_rows: dict[str, Any] = {}
        self._evaluate_function = tf.function(_own(self._evaluate), autograph=False)
        self._compiles_calls = scope is JitScope.CALL
        self.traces = Traces(
            [self._train_function, self._rows, self._work], by_shape=compiles_model and not spec.partition.static
        )

    def _make_update(self, compiles_model: bool) -> WholeUpdate | PartitionedUpdate:
        placed, spec = self.placed, self.spec
        if isinstance(placed.optimizer, OwnStepOptimizer):
            return OwnUpdate(placed, spec, self._mask_keys)
        if stays_whole(spec, placed.strategy):
            on_cpu = compiles_model and is_on_cpu(placed.strategy)
            return WholeUpdate(placed, spec, self._mask_keys, self.loss_scale, on_cpu)
        return PartitionedUpdate(placed, spec, self._mask_keys, self.loss_scale)

    def prepare(self, spec: Any) -> None:
        """Makes the loss and metric objects for batches of an element spec, and finds what a step writes, once.

        Objects that are made while a function is traced make TensorFlow trace it again.

        Raises:
            ConfigError: the loss, the metrics and the model do not fit together.
        """
        with compiled_with(self.placed.original, self.spec.loss_and_metrics):
            self.update.prepare(
                of_any_size(spec[:3], self.update.keeps_rows), training=self.placed.optimizer is not None
            )

    def begin(self) -> None:
        """Begins an epoch, or scoring: metrics begin anew."""
        with compiled_with(self.placed.original, self.spec.loss_and_metrics):
            self.update.begin()

    def logs(self, sums: Tensor) -> dict[str, Any]:
        """Keras's logs of all batches since `begin`, from the sum of their reports."""
        with compiled_with(self.placed.original, self.spec.loss_and_metrics):
            return self.update.logs(sums)

    def batch_logs(self, sums: Any) -> dict[str, Any]:
        """Returns the logs that Keras shows after a batch, from the sum of the reports since `begin`."""
        with compiled_with(self.placed.original, self.spec.loss_and_metrics):
            return self.update.batch_logs(sums)

    def use_seed(self, seed: int) -> None:
        """Takes another seed for the masks from here on; nothing is traced again."""
        self._mask_keys.assign(mask_keys(seed, self._mask_keys.shape[0]))

    def first_gradients(self, batch: Batch) -> Any:
        """The sum of a batch's mean gradients' first entries, in the replica context: for timing them alone."""
        with compiled_with(self.placed.original, self.spec.loss_and_metrics):
            return self.update.first_gradients(batch)

    def train(self, iterator: Dataset, num_steps: Tensor) -> tuple[Any, Any]:
        """See the class."""
        self.prepare(iterator.element_spec)
        found: tuple[Any, Any] = self._train_function(iterator, num_steps)
        return found

    def evaluate(self, iterator: Dataset, num_steps: Tensor) -> Any:
        """See the class."""
        with compiled_with(self.placed.original, self.spec.loss_and_metrics):
            self.update.prepare(of_any_size(iterator.element_spec[:3], self.update.keeps_rows), training=False)
        return self._evaluate_function(iterator, num_steps)

    def _train(self, iterator: Dataset, num_steps: Tensor) -> tuple[Any, Any]:
        return self._repeat(iterator, num_steps, self._work)

    def _train_batch(self, batch: Batch) -> tuple[Any, Any]:
        with compiled_with(self.placed.original, self.spec.loss_and_metrics):
            return self.update.train(batch)

    def train_rows(self, arrays: Arrays, numbers: Tensor, count: Tensor) -> tuple[Any, Any, Any]:
        """See the class."""
        spec = spec_of(arrays)
        self.prepare(spec)
        if (traced := self._concrete_rows.get(str(spec))) is None:
            # One trace for batches and data of any size; XLA compiles for each all the same.
            rows, one = tf.TensorSpec([None, None], tf.int64), tf.TensorSpec([], tf.int32)
            traced = self._concrete_rows[str(spec)] = self._rows.get_concrete_function(spec, rows, one)
        found: tuple[Any, Any, Any] = traced(arrays, tf.constant(numbers), tf.constant(count, tf.int32))
        self.traces.met([numbers.shape if self._compiles_calls else numbers.shape[1]])
        return found

    def _train_rows(self, arrays: Arrays, numbers: Tensor, count: Tensor) -> tuple[Any, Any, Any]:
        spec = spec_of(arrays)
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

        def more(step: Any, finite: Tensor, _: Any) -> Any:
            return tf.logical_and(step < count, finite)

        reports = tf.zeros([tf.shape(numbers)[0], width], self.update.dtype)
        start = (tf.constant(0), tf.constant(True), reports)
        done, finite, reports = tf.while_loop(more, body, start, parallel_iterations=1)
        return reports, finite, done

    def _evaluate(self, iterator: Dataset, num_steps: Tensor) -> Any:
        def score(batch: Batch) -> tuple[Any, Any]:
            return self.update.score(batch), tf.constant(True)

        with compiled_with(self.placed.original, self.spec.loss_and_metrics):
            return self._repeat(iterator, num_steps, score)[0]

    def _repeat(self, iterator: Dataset, num_steps: Tensor, work: Any) -> tuple[Any, Any]:
        """Runs `work` on one batch after the other, until one is not finite."""

        def body(step: Any, _: Any, reports: Any) -> tuple[Any, Any, Any]:
            report, finite = work(next(iterator))
            return step + 1, finite, reports.write(step, report)

        def more(step: Any, finite: Tensor, _: Any) -> Any:
            return tf.logical_and(step < num_steps, finite)

        reports = tf.TensorArray(self.update.dtype, size=0, dynamic_size=True, infer_shape=False)
        start = (tf.constant(0), tf.constant(True), reports)
        done, finite, reports = tf.while_loop(more, body, start, parallel_iterations=1)
        del done
        return reports.stack(), finite


class Traces:
    """Counts the traces of functions, and the shapes that XLA compiled them for.

    XLA compiles for each new shape when it comes, and no trace shows it.

    Args:
        functions: `tf.function`s.
        by_shape: whether XLA compiles them for each shape.
    """

    def __init__(self, functions: Sequence[Any], by_shape: bool) -> None:
        self._functions = functions
        self._by_shape = by_shape
        self._shapes: set[Hashable] = set()

    def met(self, shapes: Iterable[Hashable]) -> None:
        """Notes the sizes that decide the shapes of some batches, after they were worked on."""
        if self._by_shape:
            self._shapes.update(shapes)

    @property
    def count(self) -> int:
        """The number of times that something was traced or compiled so far."""
        return sum(function.experimental_get_tracing_count() for function in self._functions) + len(self._shapes)


def stays_whole(spec: StepSpec, strategy: Strategy) -> bool:
    """Whether a batch is worked on whole: on one device, in one part, without rows that fill it up."""
    partition, noise = spec.partition, spec.noise_scale
    return partition.num_microbatches == 1 and not partition.static and not noise and not makes_copies(strategy)


def _own(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method as a function that TensorFlow counts the traces of by itself.

    It counts methods by their code, over all objects: a search of many models would be warned of retracing that there
    is none of.
    """
    return functools.partial(method)
