"""An update from a whole batch on one device: Keras's own objects compute the loss and update the metrics."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tfmb.backend import keras, tf
from tfmb.choices import JitScope
from tfmb.errors import ConfigError
from tfmb.layers import PartOfBatch, part_of_batch
from tfmb.optimizers.loss_scale import LossScale
from tfmb.optimizers.optimizer import raw_variable
from tfmb.optimizers.sparse import dense, on_values
from tfmb.training.input.elements import as_keras_gives_it, data_of
from tfmb.training.keras_api import compile_args as keras_objects
from tfmb.training.step import report as reports
from tfmb.training.step.conv_as_matmul import conv_as_matmul
from tfmb.training.step.last_logs import LastLogs
from tfmb.training.step.model_state import dropouts
from tfmb.training.step.spec import PlacedModel, StepSpec
from tfmb.training.step.stock_models import is_stock, outputs_of
from tfmb.training.step.update import (
    Update,
    absent,
    check_targets,
    first_entries,
    report_dtype,
    square_of,
)
from tfmb.training.step.written_variables import StateVariable, graph_of, written_here, written_in
from tfmb.types import Batch, Data, KerasModel, Tensor

__all__ = ["WholeUpdate", "rows_of"]

# How Keras begins to say that the structure of the data is not the model's.
_DO_NOT_FIT = ("y_true and y_pred have different structures", "Missing data for input", "The path: ")


class WholeUpdate(Update):
    """Trains and scores whole batches, in the cross-replica context.

    The work of `keras.Model.train_step` is done here by the same objects: `compute_loss`, the loss tracker,
    `compute_metrics`. The tape, the rule, and the handling of an update that is not finite are ours: every variable
    that the step wrote then has its value again, whoever owns it.

    Args:
        placed: the model, compiled, on one device; its optimizer is None if it is only scored.
        spec: the options of the step.
        mask_keys: int64 variable, `layers.mask_keys` of the seed for `len(dropouts(model))` layers.
        loss_scale: built; None for none.
        xla_on_cpu: whether XLA compiles the step for a CPU: its slow operations are then replaced by others.

    Attributes:
        dtype: of reports.
    """

    width = reports.PLAIN_WIDTH

    def __init__(
        self, placed: PlacedModel, spec: StepSpec, mask_keys: Tensor, loss_scale: LossScale | None, xla_on_cpu: bool
    ) -> None:
        super().__init__(placed.optimizer, loss_scale, spec.jit_scope)
        model, strategy = placed.model, placed.strategy
        self.model, self._strategy = model, strategy
        self.keeps_rows = strategy.num_replicas_in_sync == 1
        self.trainable = [raw_variable(v) for v in model.trainable_variables]
        self.dtype = report_dtype([raw_variable(v) for v in model.variables])
        self._written: dict[str, list[StateVariable]] = {}
        self._mask_keys, self._xla_on_cpu = mask_keys, xla_on_cpu
        self._dropouts = {id(layer): number for number, layer in enumerate(dropouts(model))}
        self._differentiate: Any = self._loss_and_gradients
        if spec.jit_scope is JitScope.GRADIENTS:
            self._differentiate = tf.function(self._loss_and_gradients, jit_compile=True, autograph=False)
        self._present: list[int] = []
        # A training step and a scoring step of the model's own may name their logs differently.
        self._logs = {True: LastLogs(), False: LastLogs()}
        self._own_logs = self._logs[True]

    def prepare(self, batch: Batch, training: bool) -> None:
        """Makes loss and metric objects for batches of a spec, and finds what a step writes. Call it eagerly."""
        self._own_logs = self._logs[training]
        if training or type(self.model).test_step is keras.Model.test_step:
            check_targets(self.model, batch)
        if training and _kind_of(batch) not in self._written:
            self._written[_kind_of(batch)] = self._written_for(batch)
        elif not training and not _built(self.model):
            with _naming_what_is_missing():
                graph_of(self._score, batch)

    def _written_for(self, batch: Batch) -> list[StateVariable]:
        """Returns the variables that a step may write, without those that it trains and the optimizer's.

        A graph that never runs shows them, and lets Keras make its objects outside of what XLA compiles. It is that of
        the whole step; of its end alone where no layer can write anything but its own variables. Tracing a large model
        twice is what a first call would wait for: 0.9 of 11 s with a MobileNetV3Small (2026-11-29, 2 cores).
        """
        known = outputs_of(self.model) if self.model._compile_loss is not None and is_stock(self.model) else None
        moved = [*self.trainable, *self.optimizer_variables]
        with _naming_what_is_missing():
            if known is None:
                graph = graph_of(self._forward, batch, tf.TensorSpec([], tf.int64))
            else:
                graph = graph_of(self._end_of_step, batch, known)
        written = [v for v in written_in(graph) if not any(v.is_of(variable) for variable in moved)]
        if known is None:
            return written
        own = [raw_variable(v) for v in self.model.variables]
        return [*written, *(StateVariable(v.handle) for v in own if not any(v is variable for variable in moved))]

    @property
    def state(self) -> list[StateVariable]:
        """The variables that a step writes besides the model's and the optimizer's; known after `prepare`."""
        known = [raw_variable(v) for v in self.model.variables]
        found: list[StateVariable] = []
        for written in self._written.values():
            for variable in written:
                if not any(variable.is_same(other) for other in found) and not any(variable.is_of(v) for v in known):
                    found.append(variable)
        return found

    @property
    def optimizer_variables(self) -> list[Any]:
        """The optimizer's, which only its own update writes."""
        return [] if self.optimizer is None else self.optimizer.variables

    def train(self, batch: Batch) -> tuple[Any, Any]:
        """Makes one update; returns `(report [4], whether to draw on)`."""
        assert self.optimizer is not None
        if not self.optimizer.across_replicas:
            return self._strategy.run(self._update, args=(batch,))
        loss_finite, finite, loss, rows, means = self._strategy.run(self._gradients, args=(batch,))
        optimizer = self.optimizer
        if means:
            tf.cond(finite, lambda: _nothing(optimizer.apply(means)), lambda: tf.constant(0))
        report = reports.of_whole_batch(loss, rows, False, finite, self.dtype)
        return report, self.goes_on(loss_finite, finite)

    def score(self, batch: Batch) -> Any:
        """Scores a batch with the weights as they are, as `test_step` does; returns its report."""
        with _naming_what_is_missing():
            rows = self._strategy.run(self._score, args=(batch,))
        return reports.of_whole_batch(0.0, rows, clipped=False, applied=False, dtype=self.dtype)

    def begun_anew(self, sums: tuple[float, ...]) -> tuple[float, ...]:
        """See `Update`."""
        return reports.without_scores(sums)

    def first_gradients(self, batch: Batch) -> Any:
        """The sum of a batch's gradients' first entries, in the replica context: for timing them alone."""
        *_, gradients = self._gradients(batch)
        return first_entries(gradients)

    def begin(self) -> None:
        """Begins an epoch, or scoring: totals begin anew."""
        self.model.reset_metrics()

    def check(self) -> None:
        """Does nothing after an update that was not made: Keras's own objects computed the whole batch."""

    def logs(self, sums: Tensor) -> dict[str, Any]:
        """Keras's logs of all batches since `begin`."""
        del sums
        return self._own_logs.of_step(keras_objects.results(self.model))

    def batch_logs(self, sums: Any) -> dict[str, Any]:
        """Returns the logs that Keras shows after a batch."""
        del sums
        return self._own_logs.of_batch(keras_objects.results(self.model))

    def _update(self, batch: Batch) -> tuple[Any, Any]:
        """theta <- theta - alpha grad (1/b) sum_i L(theta; x_i, y_i): Keras's loss is the mean already."""
        loss_finite, finite, loss, rows, means = self._gradients(batch)
        clipped = self.apply_if(finite, means)  # optimizers/optimizer.py: clip, moments, step, decay, one write
        return reports.of_whole_batch(loss, rows, clipped, finite, self.dtype), self.goes_on(loss_finite, finite)

    def _gradients(self, batch: Batch) -> tuple[Any, Any, Any, Any, list[Any]]:
        """Returns (is the loss finite, is all finite, loss, rows, gradients), and leaves the final state."""
        assert self.optimizer is not None
        written = self._written[_kind_of(batch)]
        before = [variable.read() for variable in written]
        start = len(tf.compat.v1.get_default_graph().get_operations())
        scale = self.scale()
        with _naming_what_is_missing():
            loss, rows, found = self._differentiate(batch, tf.identity(self.optimizer.iterations), scale)
        if not absent(scale):
            found = [on_values(lambda g: g / tf.cast(scale, g.dtype), gradient) for gradient in found]
        square = square_of(found, self.dtype) if found and not self.selects else None
        loss_finite, finite = self.verdict(loss, found, square, tf.constant(True))
        stays = self.bring_on(loss_finite, finite)
        places = written_here(start, written)
        self._put_back_unless(stays, [written[i] for i in places], [before[i] for i in places])
        gradients: list[Any] = [None] * len(self.trainable)
        for number, gradient in zip(self._present, found, strict=True):
            gradients[number] = gradient
        return loss_finite, finite, loss, rows, gradients if self.trainable else []

    def _put_back_unless(self, stays: Any, written: list[StateVariable], before: list[Any]) -> None:
        """Gives every variable that the step wrote its value again, where the update is not made."""
        if self.selects:
            for variable, value in zip(written, before, strict=True):
                variable.assign(tf.where(stays, variable.read(), value))
            return

        def put_back() -> Any:
            for variable, value in zip(written, before, strict=True):
                variable.assign(value)
            return tf.constant(0)

        tf.cond(stays, lambda: tf.constant(0), put_back)

    def _loss_and_gradients(self, batch: Batch, update: Tensor, scale: Tensor) -> tuple[Any, Any, list[Any]]:
        """Returns (loss, rows, the existing gradients), times the scale; metrics are updated."""
        with tf.GradientTape() as tape:
            loss, rows, update_metrics = self._loss(batch, update)
            target = loss if absent(scale) else loss * tf.cast(scale, loss.dtype)
        gradients = tape.gradient(target, self.trainable)
        update_metrics()
        self._present = [i for i, gradient in enumerate(gradients) if gradient is not None]
        return (
            tf.cast(tf.reduce_mean(loss), self.dtype),  # which may be a vector, with reduction=None
            rows,
            [self._kept(gradients[i], self.trainable[i].shape) for i in self._present],
        )

    def _forward(self, batch: Batch, update: Tensor) -> Any:
        """Computes all of a step but gradients and the update."""
        loss, _, update_metrics = self._loss(batch, update)
        update_metrics()
        return loss

    def _end_of_step(self, batch: Batch, y_pred: Tensor) -> None:
        """Makes the end of a step from a stock model's outputs: loss and metrics."""
        x, y, sample_weight = data_of(batch)
        loss = self.model._compile_loss(y, y_pred, sample_weight)
        self.model._loss_tracker.update_state(loss, sample_weight=rows_of(x))
        self.model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _loss(self, batch: Batch, update: Tensor) -> tuple[Any, Any, Callable[[], None]]:
        """Returns (loss, rows, a function that updates the metrics) of a batch."""
        x, y, sample_weight = data_of(batch)
        model = self.model
        here = self._whole_batch(update)
        products = conv_as_matmul(model) if self._xla_on_cpu else contextlib.nullcontext()
        with part_of_batch(here):
            with products:
                y_pred = model(x, training=True) if model._call_has_training_arg else model(x)
            loss = model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
        rows = rows_of(x)

        def update_metrics() -> None:
            model._loss_tracker.update_state(loss, sample_weight=rows)
            self._own_logs.take(model.compute_metrics(x, y, y_pred, sample_weight=sample_weight), model)

        return loss, rows, update_metrics

    def _whole_batch(self, update: Tensor) -> PartOfBatch:
        start = tf.constant(0)
        return PartOfBatch(
            keys=self._mask_keys, update=update, start=start, order=self._dropouts, xla_on_cpu=self._xla_on_cpu
        )

    def _kept(self, gradient: Tensor, shape: Any) -> Any:
        """A gradient of a known shape; rows stay rows where Keras's optimizer would see them."""
        if not isinstance(gradient, tf.IndexedSlices):
            return tf.ensure_shape(gradient, shape)
        if self.optimizer is None or self.optimizer.stands_for is None:
            return dense(gradient, shape)
        return tf.IndexedSlices(gradient.values, gradient.indices, tf.constant(shape.as_list()))

    def _score(self, batch: Batch) -> Any:
        data = as_keras_gives_it(batch)
        self._own_logs.take(self.model.test_step(data), self.model)
        return rows_of(data)


@contextlib.contextmanager
def _naming_what_is_missing() -> Iterator[None]:
    """Says in our words that there is no loss, and in one line that data does not fit the model."""
    try:
        yield
    except (ValueError, KeyError) as error:
        text = str(error.args[0]) if error.args else ""
        if text.startswith(_DO_NOT_FIT):
            raise ConfigError(" ".join(text.split())) from error
        if not text.startswith("No loss to compute"):
            raise
        raise ConfigError("there is no loss: compile the model with one, or give loss=...") from error


def rows_of(data: Data) -> Any:
    """The number of rows of a batch, a scalar: of the first tensor in it."""
    return tf.shape(next(tensor for tensor in keras.tree.flatten(data) if tensor is not None))[0]


def _built(model: KerasModel) -> bool:
    objects = (model._compile_loss, model._compile_metrics)
    return all(each is None or each.built for each in objects)


def _kind_of(batch: Batch) -> str:
    """Returns a text for the structure, dtypes and shapes of a batch or its specs, without the number of rows."""

    def kind(part: Any) -> str:
        of = next((name for name in ("Ragged", "Sparse") if name in type(part).__name__), "dense")
        return f"{of} {part.dtype.name} {part.shape[1:] if part.shape.rank else part.shape}"

    leaves = keras.tree.flatten_with_path(batch)  # a mapping of any class, in any order of its keys
    return str(sorted((str(path), kind(part)) for path, part in leaves if part is not None))


def _nothing(value: Any) -> Any:
    del value
    return tf.constant(0)
