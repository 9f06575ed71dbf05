"""Validation data with an order of its own, which is opened for the first validation."""

from collections.abc import Callable

from tfmb.training.input.pipeline import EpochBatches, ScoredPipeline

__all__ = ["DeferredPipeline"]


class DeferredPipeline(ScoredPipeline):
    """A pipeline that is made when it is first asked for batches.

    Keras looks at the first batches of validation data after the first epoch. Where data draw from Python's or NumPy's
    generators, or count how often they were read, opening them before would change the training's batches.

    Args:
        name: the argument that the data came in.
        kind: the name of the kind of data.
        open_pipeline: makes the pipeline.
    """

    def __init__(self, name: str, kind: str, open_pipeline: Callable[[], ScoredPipeline]) -> None:
        self.name, self.kind = name, kind
        self._open = open_pipeline
        self._pipeline: ScoredPipeline | None = None

    def spec(self) -> object:
        """See `InputPipeline`; opens the data."""
        return self._opened().spec()

    def once(self) -> EpochBatches:
        """See `InputPipeline`."""
        return self._opened().once()

    def leave(self, whole: bool) -> None:
        """See `InputPipeline`."""
        if self._pipeline is not None:
            self._pipeline.leave(whole)

    def _opened(self) -> ScoredPipeline:
        if self._pipeline is None:
            self._pipeline = self._open()
            self._pipeline.static = self.static
        return self._pipeline
