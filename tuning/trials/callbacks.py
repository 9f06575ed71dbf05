"""A trial's own copies of the user's callbacks, which keep their state where the trial is cut into slices.

As in Keras Tuner each execution gets deep copies, and the files of a trial a folder of their own. They are called as by
`tfmb.fit`: `on_train_begin` in each process anew, with the state that they had put back behind it, and `on_train_end`
where the trial ends. A trial that waits on a rung has not ended.
"""

import contextlib
import copy
import hashlib
import json
import os
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfmb.backend import keras
from tfmb.errors import ConfigError, DataError
from tfmb.optimizers.shared_state import value_of
from tfmb.training.callbacks.evaluate_callbacks import callback_list
from tfmb.training.callbacks.fit_callbacks import KerasCallbacks

from .kept import Kept
from .slice_watch import SliceWatch

__all__ = ["TrialCallbacks", "callbacks_of", "copies", "described"]

_PATHS = ((keras.callbacks.ModelCheckpoint, "filepath"), (keras.callbacks.CSVLogger, "filename"))
_PLAIN = (bool, int, float, str, np.generic, type(None))
_STATE, _BEST = "callbacks", "best"
_OPAQUE = "?"  # begins no JSON


def callbacks_of(given: Any) -> tuple[Any, ...]:
    """Returns the user's callbacks as trials can copy them.

    Raises:
        ConfigError: something among them is no callback, or cannot be used by several trials.
    """
    found = tuple(keras.tree.flatten(given)) if given is not None else ()
    if any(isinstance(each, keras.callbacks.CallbackList) for each in found):
        raise ConfigError("callbacks is a CallbackList, which is one model's: give a list of callbacks")
    callback_list(found, keras.Model(), {})
    if any(isinstance(each, keras.callbacks.BackupAndRestore) for each in found):
        raise ConfigError("callbacks has a BackupAndRestore: leave it out; with run_dir the same call goes on")
    copies(found, "")
    return found


def described(callbacks: Sequence[Any]) -> list[str] | None:
    """What of callbacks decides a search, as a record has it; None for none."""
    return [
        f"{type(each).__name__} {sorted((k, v) for k, v in vars(each).items() if _is_plain(k, v))}"
        for each in callbacks
    ] or None  # fmt: skip


def copies(callbacks: Sequence[Any], place: str) -> list[Any]:
    """Returns copies for a training.

    Args:
        callbacks: the user's.
        place: a relative path that no other training has: a folder of it stands between the folder and the name of a
            file that they write.

    Raises:
        ConfigError: they cannot be copied.
    """
    try:
        made = copy.deepcopy(list(callbacks))
    except Exception as error:  # whatever the user's objects raise
        why = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        raise ConfigError(f"callbacks cannot be copied, as each trial needs them ({why}): see copy.deepcopy") from error
    for each in made:
        if isinstance(each, keras.callbacks.TensorBoard):
            each.log_dir = os.path.join(each.log_dir, place)
        for kind, name in _PATHS:
            if isinstance(each, kind):
                folder, file = os.path.split(os.fspath(getattr(each, name)))
                setattr(each, name, os.path.join(folder, place, file))
    return made


class TrialCallbacks(KerasCallbacks):
    """The callbacks of one training of a trial, whose epochs are its slices.

    Args:
        callbacks: its copies.
        kept: the model and the optimizer that are trained.
        watch: may stop it too.
        params: as `KerasCallbacks` has them.
        state: with what `pack` returned where it was cut; None at its beginning.
        put_back: gives weights and slots their values, after `on_train_begin` where it goes on.
    """

    def __init__(
        self,
        callbacks: Sequence[Any],
        kept: Kept,
        watch: SliceWatch,
        params: dict[str, Any],
        state: dict[str, np.ndarray] | None,
        put_back: Callable[[], Any],
    ) -> None:
        super().__init__(callbacks, kept.model, kept.model, kept.optimizer, params)
        self._watch, self._put_back = watch, put_back
        # A trial of Hyperband's next round finds none: its callbacks begin with the round.
        self._packed = None if state is None or _STATE not in state else state
        self._is_attached, self._has_begun = False, False
        self._logs: dict[str, Any] | None = None
        self._first: list[dict[str, Any]] = []

    @property
    def stop(self) -> bool:
        """Whether to end the slice."""
        return self._watch.stop or super().stop

    @property
    def stops_trial(self) -> bool:
        """Whether a callback asked to stop training."""
        return super().stop

    @property
    def stop_scoring(self) -> bool:
        """See `KerasCallbacks`, and `SliceWatch`."""
        return self._watch.stop_scoring or super().stop_scoring

    def attach(self, loss_scale: Any) -> None:
        """See `KerasCallbacks`: before the first slice. A Keras optimizer may have the state of the trial before."""
        if not self._is_attached:
            self._is_attached, self._loss_scale = True, loss_scale
            for theirs, ours in self._counterparts():
                theirs.assign(value_of(ours))
            super().attach(loss_scale)

    def train_begin(self) -> None:
        """Calls the callbacks before the first slice of this process, and gives them the state that they had."""
        if self._has_begun:
            return
        self._has_begun = True
        state = None if self._packed is None else _read(self._packed)
        for each in self._others():
            if isinstance(each, keras.callbacks.CSVLogger):
                os.makedirs(os.path.dirname(each.filename) or ".", exist_ok=True)
                each.append = each.append or state is not None
        self._resumed = state
        super().train_begin()
        self._first = [_collected(each) for each in self._others()]
        if state is None:
            return
        self._resumed = None  # it is between two epochs: what callbacks do at the next one's beginning counts
        for each, values, weights in zip(self._others(), state["collected"], state["best"], strict=True):
            for name, text in values.items():
                setattr(each, name, json.loads(text))
            each.__dict__.update({"best_weights": weights} if weights else {})
        self._put_back()  # weights that a callback set in the beginning, it set in the beginning of the trial
        if state["rate"] is not None:
            self._optimizer.learning_rate = state["rate"]

    def call(self, hook: str, *arguments: Any) -> None:
        """See `KerasCallbacks`; the end of a slice is none of the trial."""
        if hook == "on_train_end":
            (self._logs,) = arguments
        else:
            super().call(hook, *arguments)

    def end(self) -> None:
        """Calls the callbacks after the last epoch of the trial."""
        if self._has_begun:
            super().call("on_train_end", self._logs)

    def close(self) -> None:
        """See `KerasCallbacks`; files are closed that `on_train_end` would close."""
        super().close()
        for each in self._others():
            if isinstance(each, keras.callbacks.CSVLogger) and each.csv_file is not None:
                each.csv_file.close()

    @property
    def lost(self) -> str:
        """What of the callbacks cannot be kept, in words; empty if all can."""
        for each, first in zip(self._others(), self._first, strict=True):
            for name, text in _collected(each).items():
                if text.startswith(_OPAQUE) and text != first.get(name):
                    return f"the {name} of {type(each).__name__}"
        return ""

    def pack(self) -> dict[str, np.ndarray]:
        """Returns what a training needs that goes on from here.

        Raises:
            ConfigError: a callback has changed what cannot be kept.
        """
        if self.lost:
            raise ConfigError(
                f"callbacks: {self.lost} cannot be kept where pruning cuts a trial: let it hold numbers, texts, or "
                "lists of them, or give pruning=False"
            )
        rate = self._optimizer.learning_rate
        state = {**self.state(), "rate": rate if isinstance(rate, float) else None, "collected": [
            {name: text for name, text in _collected(each).items() if not text.startswith(_OPAQUE)}
            for each in self._others()
        ]}  # fmt: skip
        weights = {
            f"{_BEST}{number:05d}.{place:05d}": weight
            for number, each in enumerate(self._others())
            for place, weight in enumerate(getattr(each, "best_weights", None) or ())
        }
        return {_STATE: np.frombuffer(json.dumps(state).encode(), np.uint8), **weights}


def _read(packed: dict[str, np.ndarray]) -> Any:
    try:
        state = json.loads(packed[_STATE].tobytes())
        numbers = range(len(state["callbacks"]))
        names = [[key for key in sorted(packed) if key.startswith(f"{_BEST}{number:05d}.")] for number in numbers]
        state["best"] = [[packed[key] for key in keys] for keys in names]
        return {name: state[name] for name in ("history", "epochs", "callbacks", "collected", "best", "rate")}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the state of a trial's callbacks cannot be read ({error}): it is damaged") from error


def _is_plain(name: str, value: Any) -> bool:
    return isinstance(value, _PLAIN) and not name.startswith("_")


def _collected(callback: Any) -> dict[str, str]:
    """What a callback of the user's holds besides numbers, texts and functions: as JSON, or as a mark of what it is."""
    if type(callback).__module__.startswith("keras."):
        return {}  # they make anew what they need
    held = {
        name: value
        for name, value in vars(callback).items()
        if not name.startswith("_") and name not in ("model", "params", "best_weights")
        and not isinstance(value, _PLAIN) and not callable(value)
    }  # fmt: skip
    return {name: _as_text(value) for name, value in held.items()}


def _as_text(value: Any) -> str:
    with contextlib.suppress(TypeError, ValueError):
        if json.loads(text := json.dumps(value)) == value:
            return text
    try:
        return _OPAQUE + hashlib.sha256(pickle.dumps(value)).hexdigest()
    except Exception:  # whatever the user's objects raise: it is known by being the same one
        return f"{_OPAQUE}{id(value)}"
