"""The model of a process's last trial with its optimizer, and what was traced for them: the next trial may use it."""

from dataclasses import replace
from typing import Any

from tfmb.backend import tf
from tfmb.choices import JitScope
from tfmb.distribution.strategy import is_on_cpu
from tfmb.optimizers import Optimizer
from tfmb.optimizers.adjustable import Adjustable
from tfmb.optimizers.optimizer import raw_variable, value_of
from tfmb.training import trainer
from tfmb.training.keras_api.compile_args import LossAndMetrics
from tfmb.training.loop.hooks import Hooks
from tfmb.training.loop.plan import TrainingPlan
from tfmb.training.scoring import Validation
from tfmb.training.step.partition import Partition
from tfmb.training.step.spec import PlacedModel, StepSpec
from tfmb.types import KerasModel

__all__ = ["Kept", "fixed"]

# Numbers of a rule that a trial may change without tracing again, where the rule has them at all.
_ADJUSTABLE = ("momentum", "rho", "beta_1", "beta_2")


class Kept:
    """A model with its optimizer, and what was traced for them.

    Attributes:
        key: of all that is traced.
        model: the model, on its devices.
        optimizer: ours.
    """

    def __init__(self, key: str, placed: PlacedModel, loss_and_metrics: LossAndMetrics) -> None:
        assert placed.optimizer is not None
        self.key, self._placed, self.model, self.optimizer = key, placed, placed.model, placed.optimizer
        for name in _ADJUSTABLE:
            if getattr(self.optimizer, name, 0.0) and not self.optimizer.across_replicas:
                setattr(self.optimizer, name, Adjustable(getattr(self.optimizer, name)))
        replicas = placed.strategy.num_replicas_in_sync
        compiles = is_on_cpu(placed.strategy) and not self.optimizer.across_replicas and replicas == 1
        self._spec = StepSpec(
            loss_and_metrics=loss_and_metrics,
            partition=Partition(replicas=replicas),
            jit_scope=JitScope.UPDATE if compiles else JitScope.NOTHING,
        )

    def begin_anew(self, model: KerasModel, optimizer: Optimizer) -> None:
        """Takes over the initial weights of a model of the same kind, and the rate of an optimizer."""
        for ours, theirs in zip(self.model.variables, model.variables, strict=True):
            ours.assign(theirs)
        for variable in self.optimizer.variables:
            variable.assign(tf.zeros_like(value_of(variable)))
        if isinstance(optimizer.learning_rate, float):
            self.optimizer.learning_rate = optimizer.learning_rate
        for name in _ADJUSTABLE:
            if isinstance(known := getattr(self.optimizer, name, None), Adjustable):
                known.assign(getattr(optimizer, name))

    def train(self, pipeline: Any, slice_number: int, seed: int, hooks: Hooks, validation: Validation) -> None:
        """Trains one slice."""
        plan = TrainingPlan(epochs=slice_number + 1, initial_epoch=slice_number)
        spec = replace(self._spec, seed=seed)
        trainer.train(self._placed, spec, pipeline, plan, hooks, validation=validation)

    @property
    def variables(self) -> list[Any]:
        """All that the next update depends on."""
        return [*(raw_variable(v) for v in self.model.variables), *self.optimizer.variables]


def fixed(optimizer: Optimizer) -> Any:
    """What of an optimizer is part of what is traced."""
    config = {key: value for key, value in optimizer.get_config().items() if key != "name"}
    config |= {name: bool(config[name]) for name in _ADJUSTABLE if name in config}
    if isinstance(optimizer.learning_rate, float):
        config["learning_rate"] = None
    return [type(optimizer).__name__, config]
