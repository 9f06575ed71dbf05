"""Batches of a training whose epochs are slices of any length, so that it can be looked at in between."""

from tfmb.data.augment import Augmentation
from tfmb.data.batches import Order
from tfmb.data.records import Records
from tfmb.data.source import Source
from tfmb.training.input.device_arrays import Arrays
from tfmb.training.input.pipeline import ArrayPipeline

__all__ = ["SlicePipeline"]


class SlicePipeline(ArrayPipeline):
    """The batches of a training whose epochs are its slices; each slice goes on where the last one ended.

    Args:
        source: the examples.
        order: which of them each update takes.
        bounds: updates made before each slice, and after the last.
        first_slice: the number of the first one that will be asked for.
        first_update: updates made before it.
        augmentation: changes the images; None leaves them.
        arrays: the source's, where they are on the device already.
    """

    def __init__(
        self,
        source: Source | Records,
        order: Order,
        bounds: list[int],
        first_slice: int = 0,
        first_update: int = 0,
        augmentation: Augmentation | None = None,
        arrays: Arrays | None = None,
    ) -> None:
        self._bounds, self._slice = bounds, first_slice
        super().__init__(source, order, augmentation=augmentation)
        self._update, self._arrays = first_update, arrays

    def start_at(self, epoch: int, step: int, between: object = None) -> None:
        """Does nothing: the position was given when it was made."""

    def _next_steps(self) -> int:
        steps = self._bounds[self._slice + 1] - self._bounds[self._slice]
        self._slice += 1
        return steps
