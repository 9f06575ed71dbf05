"""Steps of a model that stands on a strategy's devices, in a line."""

from typing import Any

from tfmb.training.execution import step_cache
from tfmb.training.keras_api.compile_args import LossAndMetrics
from tfmb.training.step.partition import Partition
from tfmb.training.step.spec import PlacedModel, StepSpec
from tfmb.training.step.train_step import Steps


def placed_on(model: Any, optimizer: Any, strategy: Any) -> PlacedModel:
    return PlacedModel(model=model, strategy=strategy, optimizer=optimizer)


def spec_of(strategy: Any, loss: Any = "mse", metrics: Any = None, **more: Any) -> StepSpec:
    more.setdefault("partition", Partition(replicas=strategy.num_replicas_in_sync))
    return StepSpec(loss_and_metrics=LossAndMetrics(loss=loss, metrics=metrics), **more)


def steps_of(model: Any, optimizer: Any, strategy: Any, loss_scale: Any = None, **of_spec: Any) -> Steps:
    """The steps; the optimizer is built."""
    placed = placed_on(model, optimizer, strategy)
    if optimizer is not None:
        step_cache.build(placed)
    return Steps(placed, spec_of(strategy, **of_spec), loss_scale)
