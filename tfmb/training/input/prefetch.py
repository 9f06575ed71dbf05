"""The number of batches that a training reads ahead: as asked for, as it began, or as a short measurement says.

As many are read ahead as arrive in the time of the longest wait for one. A pipeline's wait for a batch is now and then
longer than mostly: at the end of an epoch, whose order is then drawn, or of a file. While it waits, a training that is
as fast as the pipeline mostly is uses that many batches up.
"""

import itertools
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tfmb.backend import keras
from tfmb.choices import check_counts
from tfmb.data.batches import READ_AHEAD
from tfmb.data.records import telling_what_cannot_be_read
from tfmb.errors import DataError
from tfmb.storage.cache import recall, remember
from tfmb.training.input.pipeline import InputPipeline
from tfmb.types import Dataset, Tensor

__all__ = ["PrefetchChoice", "choose_prefetch", "depth", "waits"]

# The answers' folder in the cache.
_KIND = "prefetch"
# A training of fewer updates is not looked at.
_WORTH_UPDATES = 100
# At least, and at most, and at most so many bytes.
_LEAST, _MOST, _MOST_BYTES = 2, 64, 2**28
# So many batches are timed, in at most about this long.
_BATCHES, _SECONDS = 64, 0.5


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
        return PrefetchChoice(prefetch=READ_AHEAD)
    question = {**fingerprint, "batches": facts, "steps": pipeline.steps}
    if (known := _known(question)) is not None:
        return known
    batches = pipeline.unread()
    with telling_what_cannot_be_read():
        seconds = waits(batches)
    if not seconds:
        return PrefetchChoice(prefetch=READ_AHEAD)
    found = PrefetchChoice(prefetch=depth(seconds, batches.element_spec), seconds=(median(seconds), max(seconds)))
    remember(_KIND, question, {"prefetch": found.prefetch, "seconds": found.seconds})
    return found


def waits(batches: Dataset) -> list[float]:
    """Returns the seconds between batches of a `tf.data.Dataset`, without the first, which waits for the start."""
    found, iterator = [], iter(batches)
    next(iterator, None)
    started = last = time.perf_counter()
    for _ in itertools.islice(iterator, _BATCHES):
        now = time.perf_counter()
        found.append(now - last)
        last = now
        if now - started > _SECONDS:
            break
    return found


def depth(waits: Sequence[float], element_spec: Any) -> int:
    """Returns the number of batches to read ahead: a power of two.

    Args:
        waits: seconds for one batch after the other where none is read ahead; at least one.
        element_spec: of the batches; an unknown size counts as 1.
    """
    longest, mostly = max(waits), max(median(waits), 1e-9)
    wanted = min(max(math.ceil(longest / mostly), _LEAST), _MOST)
    room = max(_MOST_BYTES // max(_bytes(element_spec), 1), _LEAST)
    return int(min(1 << (wanted - 1).bit_length(), 1 << (room.bit_length() - 1)))


def _bytes(element_spec: Any) -> int:
    return sum(
        math.prod(size or 1 for size in spec.shape.as_list()) * spec.dtype.size
        for spec in keras.tree.flatten(element_spec)
    )


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
        if prefetch > _MOST or not 0 <= mostly <= longest < math.inf:
            return None
        return PrefetchChoice(prefetch=prefetch, seconds=(mostly, longest), cached=True)
    except (ValueError, KeyError, TypeError):
        return None


def _positive(count: Tensor) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(count)
    return count
