"""`tfmb.lr_range`: Smith's learning-rate range test of a model, which it leaves as it was, to the bit."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfmb.advice.rate_curve import RateCurve, read_curve
from tfmb.advice.short_runs import AdviceTask, ShortRuns
from tfmb.backend import keras
from tfmb.choices import check_counts
from tfmb.data.records import Records
from tfmb.distribution.strategy import make_local_strategy
from tfmb.environment.old_names import refusing_old_names
from tfmb.errors import ConfigError
from tfmb.training.input.data_adapter import to_source
from tfmb.training.keras_api.compile_args import check_model, read_compiled
from tfmb.types import Data, KerasModel, Strategy

__all__ = ["lr_range", "sweep"]


@refusing_old_names
def lr_range(
    model: KerasModel,
    x: Data,
    y: Data = None,
    batch_size: int = 32,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    updates: int = 150,
    optimizer: Any = None,
    loss: Any = None,
    strategy: Strategy = "auto",
    devices: int | None = None,
    seed: int = 0,
) -> RateCurve:
    """Finds useful learning rates: trains for some updates while the learning rate grows exponentially.

    Afterwards the model's weights, its other state and its optimizer are what they were before, to the bit.

    Args:
        model: a `keras.Model`, compiled or not.
        x: examples, as in `tfmb.fit`.
        y: targets.
        batch_size: examples per update.
        low: the first learning rate.
        high: the last learning rate. The test ends earlier if the loss is not finite, or has risen far.
        updates: the number of updates from the first rate to the last.
        optimizer: as in `tfmb.fit`. None for the kind of optimizer that the model was compiled with, else Adam.
        loss: as in `compile`; None for the compiled one.
        strategy: as in `tfmb.fit`.
        devices: as in `tfmb.fit`.
        seed: decides the order of examples.

    Returns:
        The curve, with `learning_rate` and the `reason` for it.

    Raises:
        ConfigError: arguments that make no sense, or a model that cannot be trained.

    Example:
        >>> tfmb.lr_range(model, x, y, batch_size=64).learning_rate
    """
    if not isinstance(model, keras.Model):
        raise ConfigError(f"model is a {type(model).__name__}: give a keras.Model")
    check_model(model)
    if not 0 < low < high < float("inf"):
        raise ConfigError(f"low={low!r} and high={high!r} must be rates with 0 < low < high")
    check_counts(10, updates=updates)
    source = to_source(x, y)
    if isinstance(source, Records):
        raise ConfigError("a range test keeps its data in memory: give arrays")
    compiled = read_compiled(model)
    chosen = optimizer if optimizer is not None else compiled.optimizer if compiled.optimizer is not None else "adam"
    with _left_alone(model):
        runs = ShortRuns(
            AdviceTask(
                build=lambda: model,
                train=source,
                validation=source.rows(slice(0, 1)),
                strategy=make_local_strategy(strategy, devices, "lr_range"),
                optimizer=chosen,
                loss=loss,
                seed=seed,
            )
        )
        return sweep(runs, batch_size, low, high, updates)


def sweep(runs: ShortRuns, batch_size: int, low: float, high: float, updates: int) -> RateCurve:
    """Runs the range test of a problem with the given short runs."""
    rates = np.geomspace(low, high, updates).tolist()
    losses = runs.sweep(batch_size, rates)
    return read_curve(rates[: len(losses)], losses)


@contextlib.contextmanager
def _left_alone(model: KerasModel) -> Iterator[None]:
    """Puts the model's variables back at the end of the `with` block."""
    kept = [variable.numpy() for variable in model.variables]
    try:
        yield
    finally:
        if kept:
            for variable, value in zip(model.variables, kept, strict=True):
                variable.assign(value)
