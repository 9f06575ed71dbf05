"""Validation data with an order of its own, which is opened for the first validation."""

from collections.abc import Callable

from tfmb.training.feeds import EpochBatches, ScoredFeed

__all__ = ["LateFeed"]


class LateFeed:
    """A feed that is made when it is first asked for batches.

    Keras looks at the first batches of validation data after the first epoch. Where data draw from Python's or NumPy's
    generators, or are told how often they were read, opening them before would change what the training gets.

    Args:
        name: the argument that the data came in.
        kind: what the data is called.
        open_feed: makes the feed.
    """

    def __init__(self, name: str, kind: str, open_feed: Callable[[], ScoredFeed]) -> None:
        self.name, self.kind, self.static = name, kind, False
        self._open = open_feed
        self._feed: ScoredFeed | None = None

    def spec(self) -> object:
        """See `Feed`; opens the data."""
        return self._opened().spec()

    def once(self) -> EpochBatches:
        """See `Feed`."""
        return self._opened().once()

    def leave(self, whole: bool) -> None:
        """See `Feed`."""
        if self._feed is not None:
            self._feed.leave(whole)

    def _opened(self) -> ScoredFeed:
        if self._feed is None:
            self._feed = self._open()
            self._feed.static = self.static
        return self._feed
