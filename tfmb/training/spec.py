"""The options of a training, resolved once: every default is decided, and no TensorFlow variable is in it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfmb.choices import JitScope
from tfmb.training.loop.plan import TrainingPlan
from tfmb.training.step.spec import StepSpec

__all__ = ["Saving", "TrainSpec"]


@dataclass(frozen=True, kw_only=True)
class Saving:
    """The options for saving a run.

    Attributes:
        run_dir: the run's directory; None saves nothing.
        writes: whether this process writes there; of several workers only the first one does.
        checkpoint_every: updates between two checkpoints.
        keep_checkpoints: the number of last ones that stay.
        resume: whether to go on with the run in that directory.
        allow_mismatch: whether to go on though something differs.
    """

    run_dir: Path | None = None
    writes: bool = True
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    resume: bool = False
    allow_mismatch: bool = False

    @property
    def written(self) -> Path | None:
        """The directory that this process writes to, or None."""
        return self.run_dir if self.writes else None


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """The specification of a training.

    Attributes:
        step: the options of a step, except for XLA's scope if that is still to be measured.
        plan: the length of the training.
        jit_scope: the part of the work that XLA compiles; None for the fastest one in a trial.
        prefetch: the number of batches read ahead; None for the best one found.
        saving: how the run is saved.
        config: the options by name, which the run records, and which must be the same for it to go on.
        data: the same of the data: its `fingerprint`.
    """

    step: StepSpec
    plan: TrainingPlan
    jit_scope: JitScope | None = JitScope.NOTHING
    prefetch: int | None = None
    saving: Saving = field(default_factory=Saving)
    config: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
