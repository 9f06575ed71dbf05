"""The number of batches to read ahead: as many as arrive in the time of the longest wait for one.

A pipeline's wait for a batch is now and then longer than mostly: at the end of an epoch, whose order is then drawn, or
of a file. While it waits, a training that is as fast as the pipeline mostly is uses that many batches up.
"""

import itertools
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

from tfmb.backend import keras
from tfmb.types import Dataset

__all__ = ["DEFAULT", "MOST", "depth", "waits"]

# Where nothing is measured: enough to hide the host's hiccups, few enough to be cheap in memory.
DEFAULT = 8
# At least, and at most, and at most so many bytes.
_LEAST, MOST, _MOST_BYTES = 2, 64, 2**28
# So many batches are timed, in at most about this long.
_BATCHES, _SECONDS = 64, 0.5


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
    longest, mostly = max(waits), max(statistics.median(waits), 1e-9)
    wanted = min(max(math.ceil(longest / mostly), _LEAST), MOST)
    room = max(_MOST_BYTES // max(_bytes(element_spec), 1), _LEAST)
    return int(min(1 << (wanted - 1).bit_length(), 1 << (room.bit_length() - 1)))


def _bytes(element_spec: Any) -> int:
    return sum(
        math.prod(size or 1 for size in spec.shape.as_list()) * spec.dtype.size
        for spec in keras.tree.flatten(element_spec)
    )
