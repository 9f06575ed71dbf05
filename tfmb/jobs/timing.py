"""A `TrainConfig` in, the seconds of its updates out: nothing is trained to its end, nothing written."""

from tfmb.choices import JitScope
from tfmb.data.batches import Order
from tfmb.distribution.strategy import make_strategy
from tfmb.jobs.build import loss_and_metrics_of, prepare
from tfmb.jobs.config import TrainConfig
from tfmb.training.execution import step_cache
from tfmb.training.execution.jit_trial import parse_jit_compile
from tfmb.training.execution.placement import place
from tfmb.training.execution.profiling import Profile, profile, seconds_of_update
from tfmb.training.input.array_pipeline import ArrayPipeline, RowsOfBatches, arrays_on_device
from tfmb.training.step.partition import Partition
from tfmb.training.step.spec import PlacedModel, StepSpec
from tfmb.training.step.train_step import Steps

__all__ = ["profile_job", "time_update"]


def profile_job(config: TrainConfig) -> Profile:
    """Times the parts of an update of a configuration's model on its data: see `profiling`.

    Raises:
        ConfigError: an option that cannot be honoured with this data or model.
        DataError: the data is missing or damaged.
    """
    return profile(*_timed(config, JitScope.NOTHING))


def time_update(config: TrainConfig) -> float:
    """Seconds of an update of a configuration, with what its `jit_compile` names compiled; `"auto"` is nothing.

    Raises:
        ConfigError: an option that cannot be honoured with this data or model.
        DataError: the data is missing or damaged.
    """
    return seconds_of_update(*_timed(config, parse_jit_compile(config.jit_compile) or JitScope.NOTHING))


def _timed(config: TrainConfig, compiled: JitScope) -> tuple[Steps, RowsOfBatches]:
    """The steps of a configuration and its batches, to be timed."""
    strategy = make_strategy(config.strategy, config.devices)
    parts = prepare(config)
    order = Order(num_examples=parts.train.size, batch_size=parts.batch_size, seed=config.seed)
    pipeline = ArrayPipeline(parts.train, order)
    batches = RowsOfBatches(arrays_on_device(parts.train), order)
    model = place(parts.model, strategy, pipeline.first_inputs())
    placed = PlacedModel(model=model, strategy=strategy, optimizer=parts.optimizer)
    step_cache.build(placed)
    spec = StepSpec(
        loss_and_metrics=loss_and_metrics_of(parts.model, config),
        partition=Partition(replicas=strategy.num_replicas_in_sync),
        jit_scope=compiled,
    )
    return step_cache.steps_for(placed, spec), batches
