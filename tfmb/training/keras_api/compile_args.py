"""The arguments of `compile` in a Keras model: the one place that reads them, and replaces them for a while.

Keras keeps the loss and metric objects that it trains with under private names. They are used themselves, never
copied: whatever they are, they do what they do in `fit`.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.training.keras_api.method_calls import goes_through
from tfmb.types import KerasModel

__all__ = [
    "CompileArgs",
    "LossAndMetrics",
    "check_model",
    "compiled_with",
    "in_order",
    "objects_of",
    "read_compiled",
    "results",
]

# What `keras.Model.compile` sets.
_SET_BY_COMPILE = (
    "optimizer",
    "loss",
    "compiled",
    "steps_per_execution",
    "_compile_loss",
    "_compile_metrics",
    "_compile_config",
    "_compiled_trainable_state",
    "_loss_tracker",
    "_run_eagerly",
    "_jit_compile",
    "stop_training",
    "train_function",
    "test_function",
    "predict_function",
)


@dataclass(frozen=True, kw_only=True)
class LossAndMetrics:
    """The arguments of `compile` besides the optimizer."""

    loss: Any = None
    loss_weights: Any = None
    metrics: Any = None
    weighted_metrics: Any = None

    def with_given(self, loss: Any, metrics: Any) -> "LossAndMetrics":
        """Returns the loss and the metrics of a call, each of them this one's where the call has None."""
        return LossAndMetrics(
            loss=self.loss if loss is None else loss,
            loss_weights=self.loss_weights if loss is None else None,
            metrics=self.metrics if metrics is None else metrics,
            weighted_metrics=self.weighted_metrics if metrics is None else None,
        )

    def check(self) -> None:
        """Refuses a name that Keras does not know.

        Raises:
            ConfigError: it names the loss or metric.
        """
        by_fit = ("accuracy", "acc", "crossentropy", "ce")  # which one is meant the outputs decide
        metrics = [self.metrics, self.weighted_metrics]
        for kind, parts, find, where in (
            ("loss", self.loss, keras.losses.get, "losses"),
            ("metric", metrics, keras.metrics.get, "metrics"),
        ):
            for part in keras.tree.flatten(parts):
                if isinstance(part, str) and part.lower() not in by_fit:
                    try:
                        find(part)
                    except ValueError as error:
                        raise ConfigError(
                            f"unknown {kind} {part!r}: give one of keras.{where}, or a function"
                        ) from error

    def names(self) -> list[str]:
        """The names of all of them, in order."""
        parts = keras.tree.flatten([self.loss, self.metrics, self.weighted_metrics])
        return [str(getattr(part, "name", getattr(part, "__name__", part))) for part in parts]


@dataclass(frozen=True, kw_only=True)
class CompileArgs(LossAndMetrics):
    """The arguments of `compile` that a training loop needs, as the user gave them."""

    optimizer: Any = None


def read_compiled(model: KerasModel) -> CompileArgs:
    """Returns the arguments that the model was compiled with; empty ones if it was not compiled.

    Raises:
        ConfigError: this Keras keeps it elsewhere.
    """
    if not model.compiled:
        return CompileArgs()
    # Keras has no public way to get a custom loss or metric back as the object it is.
    config = getattr(getattr(model, "_compile_config", None), "config", None)
    if config is None:
        raise ConfigError(
            f"Keras {keras.__version__} hides what the model was compiled with: give optimizer=, loss= and metrics="
        )
    return CompileArgs(
        optimizer=model.optimizer, **{field.name: config.get(field.name) for field in fields(LossAndMetrics)}
    )


def check_model(model: KerasModel, *methods: str) -> None:
    """Refuses what the loop would otherwise silently do differently from Keras.

    Args:
        model: the user's model.
        *methods: those of `keras.Model` that would be gone past if the model had its own; none for those of training.

    Raises:
        ConfigError: no Keras model, or a method of its own.
    """
    if not isinstance(model, keras.Model):
        raise ConfigError(f"model is a {type(model).__name__}: give a keras.Model, or a function that builds one")
    for method in methods or ("fit", "make_train_function"):
        if getattr(type(model), method) is not getattr(keras.Model, method) and not goes_through(model, method):
            raise ConfigError(
                f"{type(model).__name__} has a {method} of its own, which tfmb would not call: "
                f"move what it does into the loss or the layers, or call the model's own {_AT[method]}"
            )


_AT = {
    "fit": "fit",
    "make_train_function": "fit",
    "evaluate": "evaluate",
    "make_test_function": "evaluate",
    "predict": "predict",
    "make_predict_function": "predict",
}


@contextlib.contextmanager
def compiled_with(model: KerasModel, loss_and_metrics: LossAndMetrics) -> Iterator[None]:
    """Compiles the model for a recipe inside the `with` block, and restores it afterwards.

    A model that was compiled with the recipe is left alone. Objects made for another one are kept with the model, for
    the next time. The model's optimizer stays.

    Raises:
        ConfigError: Keras refuses the loss or the metrics.
    """
    if _is_compiled_with(model, loss_and_metrics):
        yield
        return
    before = {name: model.__dict__[name] for name in _SET_BY_COMPILE if name in model.__dict__}
    given = vars(loss_and_metrics)
    known, made = getattr(model, "_tfmb_compiled", (None, None))
    if not _same(known, given):
        try:
            keras.Model.compile(model, optimizer=None, **given)
        except (ValueError, TypeError) as error:
            for name in _SET_BY_COMPILE:
                model.__dict__.pop(name, None)
            _put(model, before)
            raise ConfigError(str(error)) from error
        made = {name: model.__dict__[name] for name in _SET_BY_COMPILE if name in model.__dict__}
        if loss_and_metrics.loss is None:
            made["_compile_loss"] = None
        if loss_and_metrics.metrics is None and loss_and_metrics.weighted_metrics is None:
            made["_compile_metrics"] = None
        # On the model itself, past Keras's own tracking: it lives and dies with the model, and is not saved.
        object.__setattr__(model, "_tfmb_compiled", (given, made))
    assert made is not None
    kept = ("optimizer", "stop_training", "train_function", "test_function", "predict_function")
    _put(model, {**made, **{name: before[name] for name in kept if name in before}})
    try:
        yield
    finally:
        now = {name: model.__dict__[name] for name in ("optimizer", "stop_training") if name in model.__dict__}
        for name in _SET_BY_COMPILE:
            model.__dict__.pop(name, None)
        _put(model, {**before, **now})


def objects_of(model: KerasModel) -> list[Any]:
    """Keras's objects of a compiled model: whoever traced a step with others must trace it again."""
    return [model._compile_loss, model._compile_metrics, model._loss_tracker]


def results(model: KerasModel) -> dict[str, Any]:
    """The values of a compiled model's metrics by Keras's names: floats, or arrays where one has several."""
    return {name: plain(value) for name, value in model.get_metrics_result().items()}


def plain(value: Any) -> Any:
    """Returns a float for a single value, else an array."""
    array = np.asarray(value)
    return float(array) if array.size == 1 and array.ndim == 0 else array


def in_order(model: KerasModel, logs: dict[str, Any]) -> Any:
    """Returns the values in the order of `compile`, or the only one, as `evaluate` does."""
    return model._flatten_metrics_in_order(logs)


def _is_compiled_with(model: KerasModel, loss_and_metrics: LossAndMetrics) -> bool:
    if not model.compiled:
        return False
    config = getattr(getattr(model, "_compile_config", None), "config", {})
    return all(_same(config.get(name), value) for name, value in vars(loss_and_metrics).items())


def _same(a: Any, b: Any) -> bool:
    """Whether two arguments are made of the same objects."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    return a is b or (isinstance(a, (str, float, int)) and type(a) is type(b) and a == b)


def _put(model: KerasModel, attributes: dict[str, Any]) -> None:
    """Sets attributes past Keras's tracking, which took them in when `compile` made them."""
    model.__dict__.update(attributes)
