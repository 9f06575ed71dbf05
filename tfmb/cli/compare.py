"""`tfmb advise --compare`: batch, mini-batch and stochastic gradient descent side by side."""

import dataclasses
from typing import Any

from tfmb.environment.console import say
from tfmb.errors import ConfigError
from tfmb.jobs.config import ProblemConfig

__all__ = ["compare_on", "mini_batch_of", "with_plain_rule"]

_SECONDS, _BATCH_SIZE, _METHODS = 90.0, 64, 3


def mini_batch_of(sizes: list[int] | None) -> int:
    """The size of the mini-batch, of `--batch-sizes`.

    Raises:
        ConfigError: several sizes, or one that another method has.
    """
    sizes = [_BATCH_SIZE] if sizes is None else sizes
    if len(sizes) != 1 or sizes[0] < 2:
        raise ConfigError("--compare takes one size of a mini-batch, at least 2: give --batch-sizes 64")
    return sizes[0]


def with_plain_rule(config: ProblemConfig) -> ProblemConfig:
    """The problem with plain gradient descent, if no rule is asked for and the model brings none."""
    return dataclasses.replace(config, optimizer="sgd") if config.optimizer is None and not config.own_model else config


def compare_on(
    problem: Any, config: ProblemConfig, target: str | None, budget: float | None, batch_size: int, memory: bool
) -> Any:
    """Trains by each of the three methods, for a third of the time each."""
    from tfmb.advice.compare import compare
    from tfmb.advice.jobs import peak_of
    from tfmb.advice.target import Target

    return compare(
        problem,
        Target.parse("val_accuracy>=0.95" if target is None else target),
        batch_size=batch_size,
        seconds=(_SECONDS if budget is None else budget) / _METHODS,
        name=config.name,
        peak_of=(lambda size: peak_of(config, size)) if memory else None,
        say=say,
    )
