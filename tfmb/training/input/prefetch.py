"""The number of batches that a training reads ahead: as asked for, as it began, or as a short measurement says."""

import math
import warnings
from dataclasses import dataclass
from statistics import median
from typing import Any

from tfmb.choices import check_counts
from tfmb.data import read_ahead
from tfmb.data.records import telling_what_cannot_be_read
from tfmb.errors import DataError
from tfmb.storage.cache import recall, remember
from tfmb.training.input.pipeline import InputPipeline
from tfmb.types import Tensor

__all__ = ["PrefetchChoice", "choose_prefetch"]

# The answers' folder in the cache.
_KIND = "prefetch"
# A training of fewer updates is not looked at.
_WORTH_UPDATES = 100


@dataclass(frozen=True, kw_only=True)
class PrefetchChoice:
    """The choice of the number of batches to read ahead.

    Attributes:
        prefetch: the number of batches read ahead; None if the pipeline reads none ahead.
        seconds: for a batch, mostly and at most, if that was measured; else empty.
        cached: whether it was measured by an earlier training.
    """

    prefetch: int | None = None
    seconds: tuple[float, ...] = ()
    cached: bool = False

    def record(self) -> dict[str, Any]:
        """Returns the fields for `run.json`."""
        return {"prefetch": self.prefetch, "seconds_a_batch": list(self.seconds), "cached": self.cached}

    def __str__(self) -> str:
        mostly, longest = (f"{1000 * second:.3g} ms" for second in self.seconds)
        before = " before" if self.cached else ""
        return f"{self.prefetch} batches are read ahead (measured{before}: one takes {mostly}, at most {longest})"


def choose_prefetch(
    pipeline: InputPipeline, asked: int | None, before: Any, updates: int | None, fingerprint: dict[str, Any]
) -> PrefetchChoice:
    """Chooses the number of batches of a pipeline to read ahead.

    Args:
        pipeline: which knows where its batches will lie.
        asked: the user's number; None for the best one found.
        before: the record that `PrefetchChoice.record` wrote when the run began; None for a new one.
        updates: the number of updates of the training, as far as is known.
        fingerprint: all but the data that decides how long a batch takes, for the cache.

    Raises:
        ConfigError: nothing can be read so far ahead.
        DataError: the record makes no sense, or an example cannot be read.
    """
    check_counts(optional=True, prefetch=asked)
    facts = pipeline.facts()
    if facts is None or facts["on_device"]:
        if asked is not None:
            warnings.warn(f"prefetch={asked} changes nothing: no batch of this data is read ahead by us", stacklevel=4)
        return PrefetchChoice()
    if asked is not None:
        return PrefetchChoice(prefetch=asked)
    if before is not None and (prefetch := _as_before(before)) is not None:
        return PrefetchChoice(prefetch=prefetch)
    if updates is None or updates < _WORTH_UPDATES:
        return PrefetchChoice(prefetch=read_ahead.DEFAULT)
    question = {**fingerprint, "batches": facts, "steps": pipeline.steps}
    if (known := _known(question)) is not None:
        return known
    batches = pipeline.unread()
    with telling_what_cannot_be_read():
        waits = read_ahead.waits(batches)
    if not waits:
        return PrefetchChoice(prefetch=read_ahead.DEFAULT)
    found = PrefetchChoice(prefetch=read_ahead.depth(waits, batches.element_spec), seconds=(median(waits), max(waits)))
    remember(_KIND, question, {"prefetch": found.prefetch, "seconds": found.seconds})
    return found


def _as_before(record: Any) -> int | None:
    try:
        prefetch = record["prefetch"]
        return None if prefetch is None else _positive(prefetch)
    except (TypeError, KeyError, ValueError) as error:
        raise DataError("the record does not say how many batches were read ahead: it is damaged") from error


def _known(question: dict[str, Any]) -> PrefetchChoice | None:
    """Returns the cache's answer, or None if there is none that makes sense."""
    try:
        found = recall(_KIND, question)
        mostly, longest = map(float, found["seconds"])
        prefetch = _positive(found["prefetch"])
        if prefetch > read_ahead.MOST or not 0 <= mostly <= longest < math.inf:
            return None
        return PrefetchChoice(prefetch=prefetch, seconds=(mostly, longest), cached=True)
    except (ValueError, KeyError, TypeError):
        return None


def _positive(count: Tensor) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(count)
    return count
