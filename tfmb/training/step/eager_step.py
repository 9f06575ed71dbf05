"""The steps of a model that was compiled with `run_eagerly=True`: the same, without a compiled function around them."""

from typing import Any

import numpy as np

from tfmb.backend import tf
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.training.input.array_pipeline import Arrays, gather
from tfmb.training.keras_api.compile_args import compiled_with
from tfmb.training.step.own_update import OwnUpdate
from tfmb.training.step.train_step import Steps
from tfmb.types import Batch, Dataset, Tensor

__all__ = ["EagerSteps"]


class EagerSteps(Steps):
    """`Steps` whose every batch runs in Python, so that layers and steps may print, or look at numbers.

    It trains by the model's `train_step`, own or not, and scores by its `test_step`.
    """

    update: OwnUpdate

    def prepare(self, spec: Any) -> None:
        """Does nothing: the first step makes losses, metrics and slots, as in Keras."""
        del spec
        self.update.choose(training=self.placed.optimizer is not None)

    def train(self, iterator: Dataset, num_steps: Tensor) -> tuple[Any, Any]:
        """See `Steps`."""
        self.prepare(None)
        return self._each(iterator, num_steps, self._train_batch)

    def train_rows(self, arrays: Arrays, numbers: Tensor, count: Tensor) -> tuple[Any, Any, Any]:
        """See `Steps`."""
        self.prepare(None)
        batches = (gather(arrays, tf.constant(chosen)) for chosen in np.asarray(numbers))
        reports, finite = self._each(batches, count, self._train_batch)
        return reports, finite, len(reports)

    def evaluate(self, iterator: Dataset, num_steps: Tensor) -> Any:
        """See `Steps`."""
        self.update.choose(training=False)

        def score(batch: Batch) -> tuple[Any, Any]:
            with compiled_with(self.placed.original, self.spec.loss_and_metrics):
                return self.update.score(batch), True

        return self._each(iterator, num_steps, score)[0]

    def _each(self, iterator: Dataset, num_steps: Tensor, work: Any) -> tuple[Any, bool]:
        reports: list[np.ndarray] = []
        finite = True
        while finite and len(reports) < int(num_steps):
            try:
                batch = next(iterator)
            except StopIteration:
                raise tf.errors.OutOfRangeError(None, None, "the data has no batch more") from None
            report, goes_on = work(batch)
            reports.append(np.asarray(report))
            finite = bool(goes_on)
        return np.stack(reports), finite

    def _make_update(self, compiles_model: bool) -> OwnUpdate:
        del compiles_model
        assert self.placed.optimizer is None or isinstance(self.placed.optimizer, OwnStepOptimizer)
        return OwnUpdate(self.placed, self.spec, self._mask_keys)
