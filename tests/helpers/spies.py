"""A Keras callback that writes down how it is called."""

from collections.abc import Callable
from typing import Any

from tfmb.backend import keras

HOOKS = [
    *(f"on_{what}_{when}" for what in ("epoch", "train", "test", "predict") for when in ("begin", "end")),
    *(f"on_{what}_batch_{when}" for what in ("train", "test", "predict") for when in ("begin", "end")),
]


def _recorder(hook: str) -> Callable[..., None]:
    def record(self: Any, *arguments: Any, logs: Any = None) -> None:
        *position, last = (*arguments, logs) if logs is not None else arguments
        self.calls.append((hook, *position, sorted(last) if isinstance(last, dict) else last))
        self.logs.append(dict(last or {}))

    return record


def spy() -> Any:
    """Its `calls` are (hook, position, ..., names of its logs), and `logs` are what each call was given."""
    own: dict[str, Any] = {hook: _recorder(hook) for hook in HOOKS}
    return type("Spy", (keras.callbacks.Callback,), {**own, "calls": [], "logs": []})()
