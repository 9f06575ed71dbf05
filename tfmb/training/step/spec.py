"""The parts of a step: a model on its devices, and the options of the computation."""

from dataclasses import dataclass
from typing import Any

from tfmb.choices import JitScope
from tfmb.optimizers import Optimizer
from tfmb.training.keras_api.compile_args import LossAndMetrics
from tfmb.training.step.partition import Partition

__all__ = ["PlacedModel", "StepSpec"]


@dataclass(frozen=True, kw_only=True)
class PlacedModel:
    """A model whose variables are on the devices that train it.

    Attributes:
        model: a built `keras.Model`; its variables were made in the strategy's scope.
        strategy: of one device, or of several.
        optimizer: ours; None if the model is only scored.
        original: the user's compiled model: `model` itself, or the one that `model` is a copy of.
    """

    model: Any
    strategy: Any
    optimizer: Optimizer | None = None
    original: Any = None

    def __post_init__(self) -> None:
        if self.original is None:
            object.__setattr__(self, "original", self.model)


@dataclass(frozen=True, kw_only=True)
class StepSpec:
    """The options of a step, with every default decided. It holds no TensorFlow variable.

    Attributes:
        loss_and_metrics: the loss and the metrics.
        partition: the split of a batch over devices and microbatches.
        seed: decides the masks of `tfmb.layers.Dropout`.
        jit_scope: the part of the work that XLA compiles.
        noise_scale: whether the noise in gradients is measured: see `noise_scale`.
        lets_diverge: whether an update whose loss or gradients are not finite is made all the same, as in `fit`.
    """

    loss_and_metrics: LossAndMetrics
    partition: Partition
    seed: int = 0
    jit_scope: JitScope = JitScope.NOTHING
    noise_scale: bool = False
    lets_diverge: bool = False
