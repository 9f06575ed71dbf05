"""`tfmb.advise`: which batch size and which learning rate reach a target soonest, from a few short trainings."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from tfmb.advice.inquiry import Inquiry
from tfmb.advice.records import Advice
from tfmb.advice.short_runs import AdviceTask
from tfmb.advice.target import Target
from tfmb.data.records import Records
from tfmb.distribution.strategy import make_local_strategy
from tfmb.environment.old_names import refusing_old_names
from tfmb.errors import ConfigError
from tfmb.training.input.data_adapter import to_source, train_and_validation
from tfmb.types import Data, Strategy

__all__ = ["advise", "advise_on", "default_batch_sizes"]

_POWERS = [2**power for power in range(3, 12)]


@refusing_old_names
def advise(
    build: Callable[[], Any],
    x: Data,
    y: Data = None,
    *,
    target: str | None = None,
    budget: float | None = None,
    batch_sizes: Sequence[int] | None = None,
    validation_data: Data = None,
    validation_split: float = 0.1,
    optimizer: Any = None,
    loss: Any = None,
    metrics: Any = None,
    strategy: Strategy = "auto",
    devices: int | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Advice:
    """Measures which batch size and learning rate to use for a model and data.

    Short trainings at three batch sizes, each with the rate tuned for it, give the number of updates to a target for
    each batch size. With the measured time of an update this gives the batch size that takes the least time. That batch
    size is tried at the end.

    Args:
        build: a function without arguments that returns a Keras model, compiled or not.
        x: examples, as in `tfmb.fit`.
        y: targets.
        target: `METRIC>=VALUE` or `METRIC<=VALUE`, of `loss` or a validation metric such as `val_accuracy`. None
            chooses a validation loss that a training reaches within one pass over the data.
        budget: about how many seconds the advice may take; None for no limit.
        batch_sizes: the batch sizes to choose among; None for the powers of two from 8 to 2048, or to half of the data.
        validation_data: `(x, y)` to score on; None holds out `validation_split` of the examples.
        validation_split: the share of the examples to hold out.
        optimizer: as in `tfmb.fit`. None for the kind of optimizer that the model was compiled with, else Adam.
        loss: as in `compile`; None for the compiled one.
        metrics: as in `compile`, for a model that is not compiled.
        strategy: as in `tfmb.fit`.
        devices: as in `tfmb.fit`.
        seed: decides initial weights and orders.
        say: a function that gets a line for the user now and then.

    Returns:
        The advice. If it is undetermined, its `batch_size` is None and its `reason` says why.

    Raises:
        ConfigError: arguments that make no sense, or a model that cannot be trained.

    Example:
        >>> advice = tfmb.advise(build, x, y, target="val_accuracy>=0.97", budget=600)
        >>> advice.batch_size, advice.learning_rate
    """
    source = to_source(x, y)
    if isinstance(source, Records):
        raise ConfigError("advice keeps its data in memory: give arrays, such as the first 100,000 examples")
    source, held_out = train_and_validation(source, validation_data, validation_split)
    problem = AdviceTask(
        build=build,
        train=source,
        validation=held_out,
        strategy=make_local_strategy(strategy, devices, "advise"),
        optimizer=optimizer,
        loss=loss,
        metrics=metrics,
        seed=seed,
    )
    return advise_on(problem, target, budget, batch_sizes, name=getattr(build, "__name__", "a model"), say=say)


def default_batch_sizes(examples: int) -> list[int]:
    """Powers of two from 8 to 2048, or to half of the data."""
    return [size for size in _POWERS if size <= examples // 2] or [1]


def advise_on(
    problem: AdviceTask,
    target: str | None,
    budget: float | None,
    batch_sizes: Sequence[int] | None,
    *,
    name: str,
    say: Callable[[str], None],
) -> Advice:
    """The same for a problem: see `advise`."""
    goal = None if target is None else Target.parse(target)
    sizes = _checked(batch_sizes, problem.train.size)
    if budget is not None and not 0 < budget < math.inf:
        raise ConfigError(f"budget={budget!r} must be seconds, more than 0")
    return Inquiry(problem, goal, budget, sizes, name, say).answer()


def _checked(batch_sizes: Sequence[int] | None, examples: int) -> list[int]:
    if batch_sizes is None:
        return default_batch_sizes(examples)
    sizes = sorted(set(batch_sizes))
    if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise ConfigError(f"batch_sizes={batch_sizes!r} must be integers of at least 1")
    if sizes[-1] > examples:
        raise ConfigError(f"batch_sizes={batch_sizes!r}: there are only {examples:,} examples to train on")
    return sizes
