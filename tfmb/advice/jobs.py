"""Advice as the command line asks for it: one of our models or the user's, on data by name."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tfmb.advice.memory import NothingFitsError, free_memory, largest_batch, try_batch
from tfmb.advice.model_alone import count_bytes
from tfmb.advice.short_runs import AdviceTask
from tfmb.backend import keras
from tfmb.data import Splits, load
from tfmb.distribution.strategy import make_local_strategy
from tfmb.environment.children import ask
from tfmb.environment.imports import load_function
from tfmb.errors import ConfigError
from tfmb.jobs.build import build_model, loss_and_metrics_of
from tfmb.jobs.config import ProblemConfig, TrainConfig
from tfmb.optimizers import interop

__all__ = ["largest_batch_of", "peak_of", "problem_of"]

_COUNTING_SECONDS = 120


def problem_of(config: ProblemConfig) -> tuple[AdviceTask, str]:
    """Loads the data; returns the problem, and a line on it.

    Raises:
        ConfigError: options that cannot be honoured with this data or model.
        DataError: the data make no sense.
    """
    splits = load(config.dataset, config.mirror)
    train, validation = splits.train.hold_out(max(1, splits.train.size // 10))
    loss_and_metrics = None if config.own_model else loss_and_metrics_of(None, TrainConfig(model=config.model))
    problem = AdviceTask(
        build=_build(config, splits),
        train=train,
        validation=validation,
        strategy=make_local_strategy("auto", config.devices, "advice"),
        optimizer=_optimizer(config),
        loss=None if loss_and_metrics is None else loss_and_metrics.loss,
        metrics=None if loss_and_metrics is None else loss_and_metrics.metrics,
        seed=config.seed,
    )
    about = f"data: {splits.origin}: {train.size:,} train, {validation.size:,} for validation; the test split is unseen"
    return problem, about


def largest_batch_of(config: ProblemConfig, examples: int, say: Callable[[str], None]) -> int:
    """Returns the largest batch size, up to all examples, that runs in a process of its own.

    Raises:
        NothingFitsError: memory is too small for one example.
        ConfigError: not even one example runs, for another reason.
    """
    found = largest_batch(asdict(config), examples, say)
    if found.batch_size is None and found.trials[0].out_of_memory:
        mend = (
            "a smaller --model"
            if config.rule is not None and config.rule.name == "sgd"
            else "a smaller --model, or --optimizer sgd"
        )
        raise NothingFitsError(f"not even one example fits: {free_memory()}, and {_model_alone(config)}: give {mend}")
    if found.batch_size is None:
        raise ConfigError(f"not even a batch of one example runs: {found.reason}")
    say(f"largest batch that fits: {found.batch_size} ({found.reason})")
    return found.batch_size


def _model_alone(config: ProblemConfig) -> str:
    """Returns, for people, the model's memory without an example, counted in a process of its own."""
    ended = ask(count_bytes, asdict(config), _COUNTING_SECONDS)
    if ended.code:
        return f"what the model alone takes could not be counted ({ended.last_words})"
    return f"the model alone (weights, gradients, the optimizer's slots) takes {ended.answer() / 2**20:,.0f} MiB"


def peak_of(config: ProblemConfig, batch_size: int) -> tuple[int | None, str]:
    """Returns (the peak memory in bytes of a process that trains with this batch size, or why it is unknown)."""
    found = try_batch(asdict(config), batch_size)
    return found.peak_bytes, "" if found.fits else "does not fit"


def _optimizer(config: ProblemConfig) -> Any:
    """Returns a rule's name, or the optimizer itself if it has arguments; None for the default."""
    rule = config.rule
    return None if rule is None else interop.OPTIMIZERS[rule.name](**rule.arguments) if rule.arguments else rule.name


def _build(config: ProblemConfig, splits: Splits) -> Callable[[], Any]:
    if config.own_model:
        return load_function(config.model, "--model")
    shape = getattr(splits.train.examples, "shape", None)

    def build() -> Any:
        # The seed is the caller's: Keras's own generator was set to it.
        seed = int(keras.random.randint((), 0, 2**31 - 1, seed=keras.random.SeedGenerator()))
        shown = None if shape is None else tuple(shape[1:])
        return build_model(
            config.model_name, shown, splits.train.num_classes, splits.normalization, seed=seed, dropout=config.dropout
        )

    return build
