"""A `TrainConfig` in, the seconds of its updates out: nothing is trained to its end, nothing written."""

from tfmb.config import TrainConfig
from tfmb.data.batches import Order
from tfmb.distribution import make_strategy
from tfmb.training import prepared
from tfmb.training.compilation import Compiled, asked_for
from tfmb.training.feeds import ArrayFeed
from tfmb.training.job_parts import prepare, recipe_of
from tfmb.training.placement import place
from tfmb.training.profiling import Profile, profile, seconds_of_update
from tfmb.training.rows import RowsOfBatches, arrays_on_device
from tfmb.training.step import Steps

__all__ = ["profile_job", "time_update"]


def profile_job(config: TrainConfig) -> Profile:
    """Times the parts of an update of a configuration's model on its data: see `profiling`.

    Raises:
        ConfigError: an option that cannot be honoured with this data or model.
        DataError: the data is missing or damaged.
    """
    return profile(*_timed(config, Compiled.NOTHING))


def time_update(config: TrainConfig) -> float:
    """Seconds of an update of a configuration, with what its `jit_compile` names compiled; `"auto"` is nothing.

    Raises:
        ConfigError: an option that cannot be honoured with this data or model.
        DataError: the data is missing or damaged.
    """
    return seconds_of_update(*_timed(config, asked_for(config.jit_compile) or Compiled.NOTHING))


def _timed(config: TrainConfig, compiled: Compiled) -> tuple[Steps, RowsOfBatches]:
    """The steps of a configuration and its batches, to be timed."""
    strategy = make_strategy(config.strategy, config.replicas)
    parts = prepare(config)
    order = Order(num_examples=parts.train.size, batch_size=parts.batch_size, seed=config.seed)
    feed = ArrayFeed(parts.train, order)
    batches = RowsOfBatches(arrays_on_device(parts.train), order)
    placed = place(parts.model, strategy, feed.first_inputs())
    recipe = recipe_of(parts.model, config)
    return prepared.steps_of(placed, parts.optimizer, recipe, strategy, compiled), batches
