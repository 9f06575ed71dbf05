"""Scoring: loss and metrics over data, by themselves or at the end of an epoch."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.data.records import telling_what_cannot_be_read
from tfmb.distribution.strategy import needs_static_shapes
from tfmb.errors import ConfigError
from tfmb.training.execution.step_cache import scoring_steps
from tfmb.training.input.dataset_pipeline import DatasetPipeline
from tfmb.training.input.keras_batches import DeferredPipeline
from tfmb.training.input.pipeline import EpochBatches, ScoredPipeline, configured, ran_out
from tfmb.training.keras_api.compile_args import LossAndMetrics
from tfmb.training.keras_api.method_calls import begins
from tfmb.training.loop.hooks import CallbackHook
from tfmb.training.loop.plan import add_up
from tfmb.training.step.partition import Partition
from tfmb.training.step.spec import PlacedModel
from tfmb.training.step.train_step import Steps
from tfmb.training.step.update import check_targets
from tfmb.types import KerasModel

__all__ = ["Validation", "evaluate", "leaving", "score_pipeline"]

# Scoring holds no gradients: many batches a call cost nothing but the wait.
_SCORED_A_CALL = 20


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The validation at the end of epochs.

    Attributes:
        pipeline: the batches.
        validates: epoch (from 0) -> whether to score after it.
        scored: calls the model's own `evaluate` around a function that scores, and returns the logs; None if the model
            has none.
    """

    pipeline: ScoredPipeline
    validates: Callable[[int], bool] = lambda epoch: True
    scored: Callable[..., dict[str, Any]] | None = None

    def configured(self, *, static: bool) -> "Validation":
        """Returns a copy whose batches all have one static shape, or not."""
        return replace(self, pipeline=configured(self.pipeline, static=static))

    @property
    def is_deferred(self) -> bool:
        """Whether the batches are unknown until the first of them is needed."""
        return isinstance(self.pipeline, DeferredPipeline)

    def check(self, model: KerasModel) -> None:
        """Raises a `ConfigError` if Keras's loss has no targets to compare the outputs with."""
        if type(model).test_step is keras.Model.test_step:
            check_targets(model, self.pipeline.spec(), "validation_data")

    def logs(self, epoch: int, steps: Steps, callbacks: Any) -> dict[str, Any]:
        """Returns the logs of an epoch, with `val_` in front; empty if it is not scored."""
        if not self.validates(epoch):
            return {}
        if self.is_deferred:
            self.check(steps.placed.original)
        score = functools.partial(score_pipeline, steps, self.pipeline, callbacks)
        logs = score() if self.scored is None else callbacks.called(self.scored, score)
        return {f"val_{key}": value for key, value in logs.items()}

    def draw_again(self, epoch: int) -> None:
        """Draws what a finished epoch drew from a dataset that the training may shuffle too."""
        if isinstance(self.pipeline, DatasetPipeline) and self.validates(epoch):
            self.pipeline.score_again()


def evaluate(
    placed: PlacedModel, loss_and_metrics: LossAndMetrics, pipeline: ScoredPipeline, callbacks: Any = None
) -> dict[str, Any]:
    """Loss and metrics of a placed model over all batches of a pipeline, with Keras's names.

    Args:
        placed: the model.
        loss_and_metrics: the loss and the metrics.
        pipeline: the batches.
        callbacks: see it as Keras's callbacks do: see `InferenceCallbacks`; None for none.

    Raises:
        ConfigError: the loss, the metrics, the model and the data do not fit together, or there is no batch.
    """
    strategy = placed.strategy
    partition = Partition(replicas=strategy.num_replicas_in_sync, static=needs_static_shapes(strategy))
    pipeline = configured(pipeline, static=partition.static)
    with leaving(pipeline):
        steps = scoring_steps(placed, loss_and_metrics, partition, pipeline.spec())
        return score_pipeline(steps, pipeline, callbacks)


@contextlib.contextmanager
def leaving(*pipelines: ScoredPipeline | None) -> Iterator[None]:
    """Ends the readers of the pipelines' batches at the end of the `with` block, however it ends."""
    try:
        yield
    finally:
        for pipeline in pipelines:
            if pipeline is not None:
                pipeline.leave(False)


def score_pipeline(steps: Steps, pipeline: ScoredPipeline, callbacks: Any = None) -> dict[str, Any]:
    """Loss and metrics over all batches, by steps that may have been traced before: see `evaluate`."""
    callbacks = CallbackHook() if callbacks is None else callbacks
    batches = pipeline.once()
    begins()
    callbacks.test_begin()
    steps.begin()
    sums = _sums(steps, batches, callbacks)
    pipeline.leave(not callbacks.stop_scoring)
    if sums is None:
        raise ConfigError("there is nothing to evaluate: the data has no batch")
    logs = dict(sorted(steps.logs(np.array(sums)).items()))
    callbacks.call("on_test_end", logs)
    return logs


def _sums(steps: Steps, batches: EpochBatches, callbacks: Any) -> tuple[float, ...] | None:
    """Returns the sum of the reports of all batches; None if there is no batch."""
    each_batch = callbacks.each_test_batch
    sums: tuple[float, ...] | None = None
    done, shown = 0, 0
    total = batches.most if batches.steps is None else batches.steps
    while done != total:
        count = 1 if batches.steps is None else min(_SCORED_A_CALL, batches.steps - done)
        if each_batch:
            count = min(count, callbacks.steps_between_looks - shown)
            if not shown:
                callbacks.call("on_test_batch_begin", done)
        try:
            with telling_what_cannot_be_read():
                reports = np.asarray(steps.evaluate(batches.iterator, tf.constant(count)))
        except tf.errors.OutOfRangeError:
            if batches.most is not None:
                warnings.warn(ran_out(done, batches.most), stacklevel=3)
            break
        sums = add_up(sums, reports)
        assert sums is not None
        done += count
        if each_batch:
            shown = (shown + count) % callbacks.steps_between_looks
            if not shown:
                callbacks.call("on_test_batch_end", done - 1, _batch_logs(steps, sums))
        if callbacks.stop_scoring:
            break
    if shown and sums is not None:
        last = done - shown + callbacks.steps_between_looks - 1
        callbacks.call("on_test_batch_end", last, _batch_logs(steps, sums))
    return sums


def _batch_logs(steps: Steps, sums: tuple[float, ...]) -> dict[str, Any]:
    return dict(sorted(steps.batch_logs(np.array(sums)).items()))
