"""Calls a model's own `fit`, `evaluate` or `predict`, which finds ours if it calls that of `keras.Model`."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from tfmb.backend import keras
from tfmb.data.columns import Columns
from tfmb.data.source import Source
from tfmb.distribution.strategy import outside_of_scopes
from tfmb.environment.old_names import refuse_old_names
from tfmb.training.keras_api.compile_args import in_order
from tfmb.training.keras_api.method_calls import as_method, goes_through
from tfmb.types import Data, KerasModel

__all__ = ["called_anywhere", "has_own", "scored_by_own", "through_own"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def has_own(model: KerasModel, method: str) -> bool:
    """Whether the model's class has its own method of a name, which did not make this call."""
    if not isinstance(model, keras.Model) or goes_through(model, method):
        return False
    return getattr(type(model), method) is not getattr(keras.Model, method)


def called_anywhere(function: _Function) -> _Function:
    """`fit`, `evaluate` or `predict` that also works within the scope of a strategy, as Keras's does."""

    @functools.wraps(function)
    def call(*arguments: Any, **given: Any) -> Any:
        refuse_old_names(given)
        model = arguments[0] if arguments else given.get("model")
        with contextlib.nullcontext() if has_own(model, function.__name__) else outside_of_scopes():
            return function(*arguments, **given)

    return cast(_Function, call)


def through_own(model: KerasModel, method: str, ours: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Calls a model's own method, as its user would; `super()` in it is ours.

    Args:
        model: the model of the method.
        method: `"fit"`, `"evaluate"` or `"predict"`.
        ours: the function of that name; it gets its keyword-only arguments from `given`, the others from the method.
        given: argument of ours -> value.

    Returns:
        The result of the method.
    """
    known = inspect.signature(ours).parameters
    asked = {name: value for name, value in given.items() if name != "model" and value is not known[name].default}
    options = {name: value for name, value in asked.items() if known[name].kind is inspect.Parameter.KEYWORD_ONLY}

    def in_place(*args: Any, **kwargs: Any) -> Any:
        with as_method(model, method):
            return ours(model, *args, **{**options, **kwargs})

    plain = {name: value for name, value in asked.items() if name not in options}
    # As most users write it: the method may call them otherwise.
    data = [plain.pop(name) for name in ("x", "y") if name in plain and (name == "x" or "x" in asked)]
    with _replaced(model, method, in_place):
        return getattr(model, method)(*data, **plain)


def scored_by_own(
    model: KerasModel,
    ours: Callable[..., Any],
    data: Data,
    batch_size: int | None,
    steps: int | None,
    score: Callable[[], dict[str, Any]],
    callbacks: Any,
) -> dict[str, Any]:
    """The logs of a training's validation from the model's own `evaluate`, called as Keras's `fit` calls it.

    Args:
        model: the model of the method.
        ours: `tfmb.evaluate`.
        data: `validation_data`, or the part of the arrays that was held out.
        batch_size: of it.
        steps: of it.
        score: gives the logs of that data, which Keras scores whatever data `super().evaluate` gets.
        callbacks: Keras's list of them.
    """

    def in_place(*args: Any, _use_cached_eval_dataset: bool = False, **kwargs: Any) -> Any:
        if _use_cached_eval_dataset:
            logs = score()
            return logs if kwargs.get("return_dict") else in_order(model, logs)
        with as_method(model, "evaluate"):
            return ours(model, *args, **kwargs)

    if isinstance(data, (Source, Columns)):
        data = (data.examples, data.labels, data.sample_weight)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    with _replaced(model, "evaluate", in_place):
        logs: dict[str, Any] = model.evaluate(
            x=x, y=y, sample_weight=sample_weight, batch_size=batch_size, steps=steps, callbacks=callbacks,
            return_dict=True, _use_cached_eval_dataset=True,
        )  # fmt: skip
    return logs


@contextlib.contextmanager
def _replaced(model: KerasModel, method: str, function: Callable[..., Any]) -> Iterator[None]:
    """Puts a function in the place of a method of `keras.Model`, for one model alone."""
    before = keras.Model.__dict__.get(method)  # None where Keras inherits it
    theirs = getattr(keras.Model, method)

    def in_place(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) if self is model else theirs(self, *args, **kwargs)

    setattr(keras.Model, method, in_place)
    try:
        yield
    finally:
        if before is None:
            delattr(keras.Model, method)
        else:
            setattr(keras.Model, method, before)
