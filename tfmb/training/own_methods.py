"""A model's own `fit`, `evaluate` or `predict` is called, and finds ours where it calls that of `keras.Model`."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from tfmb.backend import keras
from tfmb.training.calls import as_method, goes_through

__all__ = ["has_own", "through_own"]


def has_own(model: Any, method: str) -> bool:
    """Whether the model's class has its own method of a name, which did not make this call."""
    if not isinstance(model, keras.Model) or goes_through(model, method):
        return False
    return getattr(type(model), method) is not getattr(keras.Model, method)


def through_own(model: Any, method: str, ours: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Calls a model's own method, as its user would; `super()` in it is ours.

    Args:
        model: whose method it is.
        method: `"fit"`, `"evaluate"` or `"predict"`.
        ours: the function of that name; it gets its keyword-only arguments from `given`, the others from the method.
        given: argument of ours -> value.

    Returns:
        What the method returns.
    """
    known = inspect.signature(ours).parameters
    asked = {name: value for name, value in given.items() if name != "model" and value is not known[name].default}
    options = {name: value for name, value in asked.items() if known[name].kind is inspect.Parameter.KEYWORD_ONLY}
    theirs = getattr(keras.Model, method)

    def in_place(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is not model:
            return theirs(self, *args, **kwargs)
        with as_method(model, method):
            return ours(self, *args, **{**options, **kwargs})

    plain = {name: value for name, value in asked.items() if name not in options}
    # As most users write it: the method may call them otherwise.
    data = [plain.pop(name) for name in ("x", "y") if name in plain and (name == "x" or "x" in asked)]
    with _replaced(method, in_place):
        return getattr(model, method)(*data, **plain)


@contextlib.contextmanager
def _replaced(method: str, function: Callable[..., Any]) -> Iterator[None]:
    before = keras.Model.__dict__.get(method)  # None where Keras inherits it
    setattr(keras.Model, method, function)
    try:
        yield
    finally:
        if before is None:
            delattr(keras.Model, method)
        else:
            setattr(keras.Model, method, before)
