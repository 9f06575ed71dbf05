"""The interface of pipelines, which give the batches of one epoch after the other: see `array_pipeline`."""

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from tfmb.training.input.first_inputs import FirstInputs

if TYPE_CHECKING:
    from tfmb.training.input.array_pipeline import RowsOfBatches

__all__ = [
    "PREFETCHED",
    "EpochBatches",
    "InputPipeline",
    "Pipeline",
    "ScoredPipeline",
    "configured",
    "ran_out",
]

# Batches of a user's dataset that are read ahead.
PREFETCHED = 2


class EpochBatches(NamedTuple):
    """The batches of one epoch.

    Attributes:
        iterator: a `tf.data` iterator of `(x, y, sample_weight)`; of padded batches, with their number of rows fourth.
            Or `RowsOfBatches`, where the pipeline was told that the arrays fit the device.
        steps: the number of batches to draw; None until it ends.
        most: the most batches to draw if it may end before; None for no limit.
    """

    iterator: Any
    steps: int | None
    most: int | None = None

    def has_more(self, drawn: int) -> bool:
        """Whether there may be a batch after `drawn` batches."""
        return (self.steps is None or drawn < self.steps) and (self.most is None or drawn < self.most)


Pipeline = TypeVar("Pipeline", bound="ScoredPipeline")


def configured(pipeline: Pipeline, **settings: Any) -> Pipeline:
    """Returns a copy with other settings: nobody writes into a pipeline that somebody reads.

    Args:
        pipeline: of which nothing was drawn yet.
        **settings: values of its attributes `static`, `on_device` or `prefetch`.
    """
    made = copy.copy(pipeline)
    for name, value in settings.items():
        setattr(made, name, value)
    return made


class ScoredPipeline(Protocol):
    """Gives all batches of data to score, any number of times.

    Attributes:
        static: whether all batches must have one static shape, a smaller one filled up.
    """

    static: bool = False

    def spec(self) -> Any:
        """The element spec of its batches `(x, y, sample_weight)`, absent ones `()`."""

    def once(self) -> EpochBatches:
        """All batches from the start, in the data's own order, for validation."""

    def leave(self, whole: bool) -> None:
        """Ends the epoch or pass that was given last; `whole` unless it was broken off."""
        return


class InputPipeline(ScoredPipeline, Protocol):
    """Gives the batches of one epoch after the other. What a pipeline leaves out of this, it has no need of.

    Attributes:
        batch_size: rows of a batch; None if the data decides that.
        steps: updates of a whole epoch; None if they are not known.
        on_device: whether arrays are to lie on the device, so that epochs are given by `RowsOfBatches` if the
            pipeline can do that.
        prefetch: the number of batches read ahead, if the pipeline reads them.
    """

    batch_size: int | None
    steps: int | None
    on_device: bool = False
    prefetch: int

    def first_inputs(self) -> FirstInputs:
        """Inputs to build a model with."""

    def epoch(self, epoch: int) -> EpochBatches:
        """The batches of an epoch, counted from 0; epochs are asked for in order."""

    def begin_at(self, epoch: int) -> None:
        """Begins at this epoch; data with an order of its own begins at its start."""
        return

    def ended(self) -> None:
        """Notes that the iterator that was given last has no further batch."""
        return

    def start_at(self, epoch: int, step: int, between: Sequence[Callable[[], None]] | None = None) -> None:
        """Starts the next epoch, `epoch`, at batch number `step`; its `steps` stay those of the whole epoch.

        Args:
            epoch: its number.
            step: of a batch in it.
            between: for each epoch behind the training, a function that repeats the draws made after it besides
                this pipeline's batches; None for nothing after any.
        """

    def rows_of_batches(self) -> "RowsOfBatches | None":
        """All batches from the start; None if they do not lie on the device."""
        return None

    def facts(self) -> dict[str, Any] | None:
        """Returns the facts that decide the time of a batch, and under `"on_device"` whether all lie on the device.

        None if only the training may draw batches, and if a trial could make nothing of them.
        """
        return None

    def for_trial(self) -> "RowsOfBatches | None":
        """Returns batches on the device for a trial, which draws none from the training; None if there are none."""
        return None

    def unread(self) -> Any:
        """A `tf.data.Dataset` of the batches around the end of an epoch, none of them read ahead, for a trial.

        None if there are no `facts`.
        """
        return None


def ran_out(steps: int, wanted: int) -> str:
    """Returns the warning of data with fewer batches than were asked for."""
    return f"the data ran out: this epoch has {steps} update(s) and not {wanted}; repeat the dataset for more"
