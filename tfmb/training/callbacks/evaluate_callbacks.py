"""Keras callbacks of `tfmb.evaluate` and `tfmb.predict`, and what those of `tfmb.fit` have in common with them."""

from collections.abc import Sequence
from typing import Any

from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.training.keras_api.limits import steps_of_execution
from tfmb.types import KerasModel

__all__ = ["TEST_BATCH_HOOKS", "InferenceCallbacks", "callback_list", "overrides"]

TEST_BATCH_HOOKS = ("on_test_batch_begin", "on_test_batch_end")


class InferenceCallbacks:
    """Calls Keras callbacks as `evaluate` and `predict` with one step an execution do; see `loop.CallbackHook`.

    Args:
        callbacks: the user's, or a `keras.callbacks.CallbackList`.
        model: the user's model.
        placed: the model that computes: the same, or a copy under a strategy.
        params: `verbose`, `epochs` and `steps`, as the callbacks get them.
        add_history: whether a History is among them.

    Attributes:
        each_test_batch: whether a callback overrides a hook of a scored batch.

    Raises:
        ConfigError: something among them is no Keras callback.
    """

    def __init__(
        self,
        callbacks: Sequence[Any] | Any,
        model: KerasModel,
        placed: KerasModel,
        params: dict[str, Any],
        add_history: bool = False,
    ) -> None:
        self._model, self._placed = model, placed
        self._list = callback_list(callbacks, model, params, add_history)
        self.each_test_batch = any(overrides(callback, TEST_BATCH_HOOKS) for callback in self._list.callbacks)

    @property
    def steps_between_looks(self) -> int:
        """The batches between two looks: `steps_per_execution` of `compile`."""
        return steps_of_execution(self._model)

    @property
    def stop_scoring(self) -> bool:
        """Whether a callback asked to stop scoring."""
        return bool(getattr(self._model, "stop_evaluating", False))

    @property
    def stop_predicting(self) -> bool:
        """Whether a callback asked to stop predicting."""
        return bool(self._model.stop_predicting)

    def test_begin(self) -> None:
        """Calls the callbacks before scoring."""
        self._model.stop_evaluating = False
        self.call("on_test_begin")

    def predict_begin(self) -> None:
        """Calls the callbacks before the first prediction."""
        self._model.stop_predicting = False
        self.call("on_predict_begin")

    def call(self, hook: str, *arguments: Any) -> None:
        """Calls a hook of all callbacks, and brings weights that one swapped at the start to where they are used."""
        getattr(self._list, hook)(*arguments)
        if hook in ("on_test_begin", "on_predict_begin") and self._placed is not self._model:
            for ours, theirs in zip(self._placed.variables, self._model.variables, strict=True):
                ours.assign(theirs)


def callback_list(callbacks: Any, model: KerasModel, params: dict[str, Any], add_history: bool = False) -> Any:
    """The user's callbacks as a `keras.callbacks.CallbackList`, which may be what they gave.

    Raises:
        ConfigError: something among them is no Keras callback.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    given = keras.tree.flatten(callbacks) if callbacks else []
    for callback in given:
        if not isinstance(callback, keras.callbacks.Callback):
            raise ConfigError(f"callbacks: {callback!r} is no keras.callbacks.Callback")
    return keras.callbacks.CallbackList(given, add_history=add_history, model=model, **params)


def overrides(callback: Any, hooks: Sequence[str]) -> bool:
    """Whether a callback does anything in one of the hooks; Keras marks its own empty ones."""
    if isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.save_freq == "epoch":
        return False  # its batch hook only counts batches then
    if isinstance(callback, keras.callbacks.BackupAndRestore) and callback.save_freq == "epoch":
        return False
    return any(not hasattr(getattr(callback, hook), "_is_default") for hook in hooks)
