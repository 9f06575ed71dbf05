"""Batches of the user's `tf.data.Dataset`, in its own order."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tfmb.backend import tf
from tfmb.errors import ConfigError
from tfmb.training.input.elements import as_they_are, check_elements, in_parts, inputs_in
from tfmb.training.input.first_inputs import FirstInputs
from tfmb.training.input.pipeline import PREFETCHED, EpochBatches, InputPipeline, ran_out
from tfmb.training.keras_api.method_calls import begins
from tfmb.types import Dataset

__all__ = ["DatasetPipeline"]


class DatasetPipeline(InputPipeline):
    """Batches of the user's dataset, in its own order.

    None of them is for a trial: drawing from the dataset may change what it yields next. Its own batches have a known
    size, or are refused where one is needed.

    Args:
        dataset: batched; elements `(x, y)` or `(x, y, sample_weight)`.
        steps_per_epoch: None for all batches of the dataset; otherwise as in `ArrayPipeline`.
        name: the argument it came in, for error messages.
        steps_name: the argument that limits it.
        size: its number of batches, as `cardinality` has it; None for what the dataset says.
        ahead: batches that are read ahead.
        whole: whether elements stay as they are, of any structure, for a model's own step: see `WholeElement`.

    Raises:
        ConfigError: the dataset is infinite and there is no limit.
    """

    kind = "dataset"

    def __init__(
        self,
        dataset: Dataset,
        steps_per_epoch: int | None = None,
        name: str = "x",
        steps_name: str = "",
        *,
        size: int | None = None,
        ahead: int = PREFETCHED,
        whole: bool = False,
    ) -> None:
        self.batch_size: int | None = None
        self.prefetch = PREFETCHED  # what else is read ahead is the dataset's own affair
        if not whole:
            check_elements(dataset.element_spec, name)
        batches = as_they_are(dataset) if whole else in_parts(dataset)
        # A pass ends where the dataset does. Elsewhere what is read ahead would be drawn and never used: the next call,
        # or another epoch of a seeded shuffle, would find another state than after Keras.
        self._dataset = batches.prefetch(ahead) if ahead and steps_per_epoch is None else batches
        self._name = name
        size = int(dataset.cardinality()) if size is None else size
        if size == tf.data.INFINITE_CARDINALITY and steps_per_epoch is None:
            raise ConfigError(f"{name} is an infinite {self.kind}: give {steps_name or 'steps_per_epoch'}")
        self._size = None if size < 0 else size
        self._endless = size == tf.data.INFINITE_CARDINALITY
        self.steps: int | None = steps_per_epoch or self._size
        self._steps_per_epoch = steps_per_epoch
        self._iterator: Iterator[Any] | None = None
        self._drawn = 0
        self._draws_another = False
        self._declared = dataset.options()
        self._skipped = 0

    def first_inputs(self) -> FirstInputs:
        """See `InputPipeline`."""
        return FirstInputs(spec=lambda: inputs_in(self.spec()[0]), read=self._read_inputs)

    def _read_inputs(self) -> Any:
        for x, _, _ in self._from_start():
            return inputs_in(x)
        raise ConfigError(f"{self._name} has no batch: give a dataset with at least one")

    def spec(self) -> Any:
        """See `InputPipeline`."""
        return self._dataset.element_spec

    def epoch(self, epoch: int) -> EpochBatches:
        """The batches of an epoch."""
        del epoch
        batches, skipped = self._next_epoch(), self._skipped
        self._skipped = 0
        for _ in range(skipped):
            next(batches.iterator)
        return batches

    def start_at(self, epoch: int, step: int, between: Sequence[Callable[[], None]] | None = None) -> None:
        """Draws all batches before that again, so that a shuffling dataset comes to the same place.

        The work between the epochs is done again too: validation may have read the same dataset.

        Raises:
            ConfigError: the dataset is not declared deterministic.
        """
        if self._declared.deterministic is not True:
            raise ConfigError(
                f"{self._name} is a tf.data.Dataset, which must repeat its batches when a run goes on: declare "
                "it deterministic (options.deterministic = True, and a seed in every shuffle) or give arrays"
            )
        self._iterator, self._drawn = None, 0
        for do_again in [lambda: None] * epoch if between is None else between:
            _draw(self._next_epoch())
            self.leave(True)
            do_again()
        self._skipped = step

    def score_again(self) -> None:
        """Draws the batches of a scoring again, and scores nothing."""
        _draw(self.once())
        self.leave(True)

    def _next_epoch(self) -> EpochBatches:
        if self._steps_per_epoch is None:
            self._draws_another = self._size is not None
            return EpochBatches(self._from_start(), self._size)
        if self._iterator is None or self._drawn == self._size:
            self._iterator, self._drawn = self._from_start(), 0
        steps = self._steps_per_epoch
        if self._size is not None and steps > self._size - self._drawn:
            steps = self._size - self._drawn
            warnings.warn(ran_out(steps, self._steps_per_epoch), stacklevel=2)
        self._drawn += steps
        self._draws_another = self._drawn == self._size
        if self._size is None and not self._endless:
            return EpochBatches(self._iterator, None, steps)
        return EpochBatches(self._iterator, steps)

    def ended(self) -> None:
        """See `InputPipeline`: the next epoch begins with the dataset's first batch, as in Keras."""
        if self._steps_per_epoch is not None and self._iterator is not None:
            warnings.warn("the data ran out: this epoch is shorter; repeat the dataset for more", stacklevel=2)
        self._iterator = None

    def leave(self, whole: bool) -> None:
        """See `InputPipeline`: the next one is another iterator, or goes on with this one.

        Where Keras has counted its way to the dataset's end, it makes an iterator at once, and still another one for
        the next epoch if `steps_per_epoch` is None. A shuffle with a seed gives each iterator another order.
        """
        if whole and self._draws_another:
            self._iterator, self._drawn = self._from_start(), 0
        self._draws_another = False

    def once(self) -> EpochBatches:
        """The dataset from its start, once."""
        limit = self._steps_per_epoch
        if limit is not None and self._size is not None and limit > self._size:
            warnings.warn(ran_out(self._size, limit), stacklevel=2)
            limit = self._size
        if self._size is None:
            return EpochBatches(self._from_start(), None, limit)
        self._draws_another = limit in (None, self._size)
        return EpochBatches(self._from_start(), self._size if limit is None else limit)

    def _from_start(self) -> Any:
        """Returns the batches from the first one on: the dataset draws as soon as there is an iterator."""
        begins()
        return iter(self._dataset)


def _draw(batches: EpochBatches) -> None:
    """Draws all of them."""
    left = batches.most if batches.steps is None else batches.steps
    while left is None or left:
        try:
            next(batches.iterator)
        except StopIteration:
            break
        left = None if left is None else left - 1
