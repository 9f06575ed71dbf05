"""The one adapter through which Keras callbacks see our loop, and may stop it, set its rate or its weights.

Callbacks act on `model` and on `model.optimizer`. Before they are called both get the state of our loop; their
changes are taken over afterwards.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfmb.backend import keras
from tfmb.optimizers import Optimizer
from tfmb.optimizers.own_step import OwnStepOptimizer
from tfmb.optimizers.shared_state import raw_variable, value_of
from tfmb.training.callbacks.evaluate_callbacks import TEST_BATCH_HOOKS, InferenceCallbacks, overrides
from tfmb.types import KerasModel

__all__ = ["KerasCallbacks", "StandInOptimizer", "terminates_on_nan"]

_TRAIN_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")


class StandInOptimizer:
    """The rate and the count that callbacks find as `model.optimizer` of a model without a Keras optimizer.

    Attributes:
        learning_rate: a float; assign one to change the rate.
        iterations: the number of updates made.
    """

    def __init__(self) -> None:
        self.learning_rate = 0.0
        self.iterations = 0


class KerasCallbacks(InferenceCallbacks):
    """Calls Keras callbacks as `fit` with one step an execution does; see `loop.CallbackHook`.

    Args:
        callbacks: the user's, or a `keras.callbacks.CallbackList`.
        model: the user's model.
        placed: the model that is trained: the same, or a copy under a strategy.
        optimizer: ours.
        params: `verbose`, `epochs` and `steps`, as the callbacks get them.

    Attributes:
        history: the History of the run.
        each_batch: whether a callback overrides a batch hook, so that the loop must run one step a call.

    Raises:
        ConfigError: something among them is no Keras callback.
    """

    def __init__(
        self,
        callbacks: Sequence[Any] | Any,
        model: KerasModel,
        placed: KerasModel,
        optimizer: Optimizer,
        params: dict[str, Any],
    ) -> None:
        super().__init__(callbacks, model, placed, params, add_history=True)
        self._optimizer = optimizer
        self.each_batch = any(overrides(callback, _TRAIN_BATCH_HOOKS) for callback in self._list.callbacks)
        self.history = model.history
        self._before: Any = getattr(model, "optimizer", None)
        self._loss_scale: Any = None
        self._shown_rate: float | None = None
        self._resumed: dict[str, Any] | None = None
        self._fresh: list[dict[str, Any]] = []

    def attach(self, loss_scale: Any) -> None:
        """Puts what stands for our optimizer in its place, with its state; ours starts from that where it has its own.

        Args:
            loss_scale: the one that is used, or None.
        """
        self._loss_scale = loss_scale
        theirs = self._optimizer.scaled_by or self._optimizer.stands_for
        if not isinstance(self._optimizer, OwnStepOptimizer):  # which uses what the model has
            self._put(StandInOptimizer() if theirs is None else theirs)
        for theirs, ours in self._counterparts():
            ours.assign(value_of(theirs))

    def state(self) -> dict[str, Any]:
        """Returns the History so far, and the changes of every callback's plain public attributes since the start."""
        history = {key: [np.asarray(v).tolist() for v in values] for key, values in self.history.history.items()}
        changed = [
            {name: value for name, value in _plain(callback).items() if name not in before or before[name] != value}
            for callback, before in zip(self._others(), self._fresh, strict=True)
        ]
        return {"history": history, "epochs": list(self.history.epoch), "callbacks": changed}

    def restore(self, state: Any) -> None:
        """Takes up that state after `on_train_begin`, in which callbacks reset themselves."""
        self._resumed = state
        keeping = [type(c).__name__ for c in self._others() if getattr(c, "restore_best_weights", False)]
        if state is not None and keeping:
            warnings.warn(f"{', '.join(keeping)}: the best weights before this point are not kept", stacklevel=4)

    def _others(self) -> list[Any]:
        return [callback for callback in self._list.callbacks if callback is not self.history]

    @property
    def batch_watchers(self) -> list[str]:
        """The names of the callbacks that override a batch hook."""
        hooks = (*_TRAIN_BATCH_HOOKS, *TEST_BATCH_HOOKS)
        return [type(callback).__name__ for callback in self._list.callbacks if overrides(callback, hooks)]

    @property
    def stop(self) -> bool:
        """Whether a callback asked to stop training."""
        return bool(getattr(self._model, "stop_training", False))

    @property
    def first_epoch(self) -> int | None:
        """The epoch that a callback (`BackupAndRestore`) wants to begin with; None for the first."""
        found: int | None = getattr(self._model, "_initial_epoch", None)
        return found

    def train_begin(self) -> None:
        """Calls the callbacks before the first epoch."""
        self._model.stop_training = False
        self._model._initial_epoch = None  # of a training before this one
        self.call("on_train_begin")
        self._fresh = [_plain(callback) for callback in self._others()]
        if self._resumed is not None:
            arrays = {key: [v if np.ndim(v) == 0 else np.asarray(v) for v in values]
                      for key, values in self._resumed["history"].items()}  # fmt: skip
            self.history.history, self.history.epoch = arrays, list(self._resumed["epochs"])
            self._set(self._resumed["callbacks"])

    def epoch_begin(self, epoch: int) -> None:
        """Calls the callbacks before an epoch. If a resumed run is in the epoch, they keep their saved state."""
        kept = None if self._resumed is None else [_plain(callback) for callback in self._others()]
        self.call("on_epoch_begin", epoch)
        if kept is not None:
            self._set(kept)
        self._resumed = None

    def _set(self, attributes: Sequence[dict[str, Any]]) -> None:
        for callback, values in zip(self._others(), attributes, strict=True):
            for name, value in values.items():
                setattr(callback, name, value)

    def called(self, scored: Callable[..., dict[str, Any]], score: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns the result of the model's own `evaluate`, which sees the current model, like a callback."""
        self._show()
        return scored(score, self._list)

    def close(self) -> None:
        """Gives the Keras optimizer the last state, and takes away what stood in its place."""
        for theirs, ours in self._counterparts():
            theirs.assign(value_of(ours))
        self._put(self._before)

    def _put(self, optimizer: Any) -> None:
        """Sets the model's optimizer past Keras's tracking: it is the model's for this training only."""
        self._model.__dict__["optimizer"] = optimizer

    def call(self, hook: str, *arguments: Any) -> None:
        """Calls a hook of all callbacks, which see the state of our loop; takes over what they changed."""
        shown = self._show()
        getattr(self._list, hook)(*arguments)
        self._take_over(shown)

    def _show(self) -> list[np.ndarray]:
        """Gives the user's model and its optimizer the state of our loop."""
        optimizer, ours = self._model.optimizer, self._optimizer
        if isinstance(optimizer, StandInOptimizer):
            optimizer.iterations = 0 if ours.iterations is None else int(value_of(ours.iterations))
            optimizer.learning_rate = float(ours.rate_at(optimizer.iterations))
            self._shown_rate = optimizer.learning_rate
        shown = []
        for theirs, value in self._pairs():
            shown.append(np.asarray(value_of(value)))
            theirs.assign(shown[-1])
        return shown

    def _take_over(self, shown: list[np.ndarray]) -> None:
        """Takes over a rate or values that a callback set."""
        optimizer = self._model.optimizer
        if isinstance(optimizer, StandInOptimizer) and float(optimizer.learning_rate) != self._shown_rate:
            self._optimizer.learning_rate = float(optimizer.learning_rate)
        for (theirs, ours), value in zip(self._pairs(), shown, strict=True):
            now = np.asarray(value_of(theirs))
            if not np.array_equal(now, value.astype(now.dtype)):
                ours.assign(now)

    def _pairs(self) -> list[tuple[Any, Any]]:
        """Returns (the user's variable, our loop's variable) for every pair that is not the same variable."""
        if self._placed is self._model:
            return self._counterparts()
        variables = zip(self._model.variables, self._placed.variables, strict=True)
        return [*((raw_variable(theirs), raw_variable(ours)) for theirs, ours in variables), *self._counterparts()]

    def _counterparts(self) -> list[tuple[Any, Any]]:
        trained = self._model.trainable_variables
        scale = [] if self._loss_scale is None else self._loss_scale.counterparts(trained)
        return [*self._optimizer.counterparts(trained), *scale]


def terminates_on_nan(callbacks: Any) -> bool:
    """Whether a loss that is not finite is left to a `keras.callbacks.TerminateOnNaN`."""
    given = keras.tree.flatten(getattr(callbacks, "callbacks", callbacks) or [])
    return any(isinstance(callback, keras.callbacks.TerminateOnNaN) for callback in given)


def _plain(callback: Any) -> dict[str, Any]:
    """A callback's public attributes that JSON can hold."""
    values = {name: v.item() if isinstance(v, np.generic) else v for name, v in vars(callback).items()}
    plain = (bool, int, float, str, type(None))
    # Keras turns min_delta's sign at the first epoch's end of every training, also of one that goes on.
    return {
        name: v for name, v in values.items()
        if isinstance(v, plain) and not name.startswith("_") and name != "min_delta"
    }  # fmt: skip
