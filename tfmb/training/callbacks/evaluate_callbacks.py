"""Keras callbacks of `tfmb.evaluate` and `tfmb.predict`."""

from collections.abc import Sequence
from typing import Any

from tfmb.training.callbacks.fit_callbacks import callback_list, overrides
from tfmb.training.keras_api.steps_per_execution import steps_of_execution
from tfmb.types import KerasModel

__all__ = ["InferenceCallbacks"]


class InferenceCallbacks:
    """Calls Keras callbacks as `evaluate` and `predict` with one step an execution do.

    Args:
        callbacks: the user's, or a `keras.callbacks.CallbackList`.
        model: the user's model.
        placed: the model that computes: the same, or a copy under a strategy.
        params: `verbose`, `epochs` and `steps`, as the callbacks get them.

    Attributes:
        each_test_batch: whether a callback overrides a hook of a scored batch.

    Raises:
        ConfigError: something among them is no Keras callback.
    """

    def __init__(
        self, callbacks: Sequence[Any] | Any, model: KerasModel, placed: KerasModel, params: dict[str, Any]
    ) -> None:
        self._model, self._placed = model, placed
        self._list = callback_list(callbacks, model, params)
        hooks = ("on_test_batch_begin", "on_test_batch_end")
        self.each_test_batch = any(overrides(callback, hooks) for callback in self._list.callbacks)

    @property
    def steps_between_looks(self) -> int:
        """The batches between two looks: `steps_per_execution` of `compile`."""
        return steps_of_execution(self._model)

    @property
    def stop_scoring(self) -> bool:
        """Whether a callback asked to stop scoring."""
        return bool(self._model.stop_evaluating)

    @property
    def stop_predicting(self) -> bool:
        """Whether a callback asked to stop predicting."""
        return bool(self._model.stop_predicting)

    def test_begin(self) -> None:
        """Calls the callbacks before scoring."""
        self._model.stop_evaluating = False
        self._list.on_test_begin()
        self._take_over()

    def test_batch_begin(self, step: int) -> None:
        """Calls the callbacks before a batch is scored, if `each_test_batch`."""
        self._list.on_test_batch_begin(step)

    def test_batch_end(self, step: int, logs: dict[str, Any]) -> None:
        """Calls the callbacks after a batch was scored, if `each_test_batch`, with the logs so far."""
        self._list.on_test_batch_end(step, logs)

    def test_end(self, logs: dict[str, Any]) -> None:
        """Calls the callbacks after scoring."""
        self._list.on_test_end(logs)

    def predict_begin(self) -> None:
        """Calls the callbacks before the first prediction."""
        self._model.stop_predicting = False
        self._list.on_predict_begin()
        self._take_over()

    def predict_batch_begin(self, step: int) -> None:
        """Calls the callbacks before a batch, or the first of some, is predicted."""
        self._list.on_predict_batch_begin(step)

    def predict_batch_end(self, step: int, outputs: Any) -> None:
        """Calls the callbacks after a batch, or the last of some, was predicted."""
        self._list.on_predict_batch_end(step, {"outputs": outputs})

    def predict_end(self) -> None:
        """Calls the callbacks after the last prediction."""
        self._list.on_predict_end()

    def _take_over(self) -> None:
        """Brings weights that a callback swapped to where they are used."""
        if self._placed is not self._model:
            for ours, theirs in zip(self._placed.variables, self._model.variables, strict=True):
                ours.assign(theirs)
