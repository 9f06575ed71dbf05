"""The sources of an epoch's batches: arrays in our order, or the user's own `tf.data.Dataset`."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from tfmb.backend import keras, tf
from tfmb.data import read_ahead
from tfmb.data.augment import Augmentation
from tfmb.data.batches import Order, batched
from tfmb.data.records import Records, telling_what_cannot_be_read
from tfmb.data.source import Source
from tfmb.training.input.device_arrays import Arrays, RowsOfBatches, arrays_on_device, first_batches, spec_of
from tfmb.training.input.first_inputs import FirstInputs

__all__ = [
    "PREFETCHED",
    "ArrayPipeline",
    "EpochBatches",
    "InputPipeline",
    "Pipeline",
    "ScoredPipeline",
    "configured",
    "ran_out",
]

# Batches of a user's dataset that are read ahead.
PREFETCHED = 2
# Batches that a trial makes its updates of where it cannot have all.
_TRIED = 8
# A pipeline is timed from so many batches before the end of an epoch on.
_BEFORE_THE_END = 8


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

    def rows_of_batches(self) -> RowsOfBatches | None:
        """All batches from the start; None if they do not lie on the device."""
        return None

    def facts(self) -> dict[str, Any] | None:
        """Returns the facts that decide the time of a batch, and under `"on_device"` whether all lie on the device.

        None if only the training may draw batches, and if a trial could make nothing of them.
        """
        return None

    def for_trial(self) -> RowsOfBatches | None:
        """Returns batches on the device for a trial, which draws none from the training; None if there are none."""
        return None

    def unread(self) -> Any:
        """A `tf.data.Dataset` of the batches around the end of an epoch, none of them read ahead, for a trial.

        None if there are no `facts`.
        """
        return None


class ArrayPipeline(InputPipeline):
    """Batches of a source in the order of `Order`.

    Args:
        source: the examples, in memory or read as they are needed.
        order: which of them each update takes.
        steps_per_epoch: None for one pass over the data; otherwise an epoch is that many updates, and as in Keras
            the next one goes on where it stopped and the pass's last epoch may be shorter.
        initial_epoch: the number of the first epoch that will be asked for.
        augmentation: changes the images of the epochs; None leaves them.
    """

    def __init__(
        self,
        source: Source | Records,
        order: Order,
        steps_per_epoch: int | None = None,
        initial_epoch: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.prefetch = read_ahead.DEFAULT
        self._augmentation = augmentation
        self._source = source
        self._order = order
        self.batch_size: int | None = order.batch_size
        self._steps_per_epoch = steps_per_epoch
        self.steps: int | None = steps_per_epoch or order.steps_per_epoch
        self._unshuffled: Any = None
        self._arrays: Arrays | None = None
        self._iterator: Any = None
        self._update = self._skipped = self._first_epoch = 0
        self.begin_at(initial_epoch)

    def first_inputs(self) -> FirstInputs:
        """See `InputPipeline`."""
        return FirstInputs(spec=lambda: self.spec()[0], read=self._first_row)

    def _first_row(self) -> Any:
        if isinstance(self._source, Records):
            return self._source.read(tf.zeros([1], tf.int64))[0]
        first = keras.tree.map_structure(
            lambda array: tf.constant(array[:1]), self._source.examples, none_is_leaf=False
        )
        return keras.tree.lists_to_tuples(first)

    def spec(self) -> Any:
        """See `InputPipeline`."""
        if isinstance(self._source, Records):
            return self._batched(0, 0).element_spec
        return keras.tree.lists_to_tuples(spec_of(self._source.parts))

    def begin_at(self, epoch: int) -> None:
        """Rows that are not shuffled have the order of their own, and begin with the first, as in Keras."""
        if self._steps_per_epoch is not None and not self._order.shuffle:
            self._first_epoch = epoch
        self.start_at(epoch, 0)

    def epoch(self, epoch: int) -> EpochBatches:
        """The batches of an epoch: one endless source of them serves all."""
        del epoch
        if self._iterator is None:
            first = self._update + self._skipped
            self._iterator = self.rows_of_batches(first) if self.on_device else None
            if self._iterator is None:
                self._iterator = iter(self._batched(first, self.prefetch))
        steps = self._next_steps()
        if self._steps_per_epoch is not None and steps < self._steps_per_epoch:
            warnings.warn(ran_out(steps, self._steps_per_epoch), stacklevel=2)
        self._update += steps
        return EpochBatches(self._iterator, steps)

    def start_at(self, epoch: int, step: int, between: Sequence[Callable[[], None]] | None = None) -> None:
        """See `InputPipeline`: the order is a function of the number of the batch, so nothing is drawn in vain."""
        self._iterator = None
        self._update, self._skipped = 0, step
        for _ in range(self._first_epoch, epoch):
            self._update += self._next_steps()

    def once(self) -> EpochBatches:
        """All examples once, unshuffled."""
        steps = min(self._steps_per_epoch or self._order.steps_per_epoch, self._order.steps_per_epoch)
        if self._unshuffled is None:
            order = Order(
                num_examples=self._order.num_examples, batch_size=self._order.batch_size, seed=0, shuffle=False
            )
            self._unshuffled = batched(self._source, order, static=self.static).take(steps)
        return EpochBatches(iter(self._unshuffled), steps)

    def rows_of_batches(self, first_update: int = 0) -> RowsOfBatches | None:
        """See `InputPipeline`."""
        if not self._lie_on_device or isinstance(self._source, Records):
            return None
        if self._arrays is None:
            self._arrays = arrays_on_device(self._source)
        return RowsOfBatches(self._arrays, self._order, first_update)

    def for_trial(self) -> RowsOfBatches | None:
        """See `InputPipeline`."""
        if self._lie_on_device:
            return self.rows_of_batches()
        with telling_what_cannot_be_read():
            return first_batches(self._batched(0, 0), self._order.batch_size, _TRIED)

    def unread(self) -> Any:
        """See `InputPipeline`."""
        return self._batched(max(self._order.steps_per_epoch - _BEFORE_THE_END, 0), 0)

    def facts(self) -> dict[str, Any] | None:
        """See `InputPipeline`."""
        source = self._source
        if isinstance(source, Records) and not source.dense:
            return None
        if isinstance(source, Records):
            kind = str(source.element_spec)
        else:
            arrays = keras.tree.flatten([source.examples, source.labels, source.sample_weight])
            kind = " ".join("none" if a is None else f"{a.dtype}{list(a.shape[1:])}" for a in arrays)
        return {
            "batch_size": self._order.batch_size,
            "examples": kind,
            "records": isinstance(source, Records),
            "augmentation": repr(self._augmentation),
            "static": self.static,
            "on_device": self.on_device and self._lie_on_device,
        }

    @property
    def _lie_on_device(self) -> bool:
        return not (self.static or self._augmentation is not None or isinstance(self._source, Records))

    def _batched(self, first: int, prefetch: int) -> Any:
        return batched(self._source, self._order, first, self._augmentation, self.static, prefetch)

    def _next_steps(self) -> int:
        left = self._order.steps_per_epoch - self._update % self._order.steps_per_epoch
        return left if self._steps_per_epoch is None else min(left, self._steps_per_epoch)


def ran_out(steps: int, wanted: int) -> str:
    """Returns the warning of data with fewer batches than were asked for."""
    return f"the data ran out: this epoch has {steps} update(s) and not {wanted}; repeat the dataset for more"
