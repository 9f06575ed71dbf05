"""The use of the cores in a span of time: by this process, by others or by nobody, as Linux counts it."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Meanwhile", "Processor"]

_COUNTS = Path("/proc/stat")
# Others take so much of a core, and leave less than so much idle, before a time counts as disturbed. On 2 cores
# (Intel Xeon, 2026-11-29) a quiet machine showed others at 0.00 to 0.05, and 0.73 to 0.80 idle with the MLP on digits,
# 0.34 to 0.41 with the CNN; one with a test suite beside it others at 0.8 to 1.6 and 0.0 idle, where an update took up
# to 2.4 times as long.
_TAKEN, _IDLE = 0.25, 0.1
# The system counts in hundredths of a second: of less than ten it tells too little.
_SHORTEST = 0.1


@dataclass(frozen=True, kw_only=True)
class Meanwhile:
    """The use of the cores in a span of time.

    Attributes:
        cores: that this process may use.
        others: cores that others took, in the mean.
        idle: cores that nobody took.
    """

    cores: int
    others: float
    idle: float

    @property
    def disturbed(self) -> bool:
        """Whether this process may have had to wait for a core."""
        return self.others > _TAKEN and self.idle < _IDLE


class Processor:
    """Measures the use of the cores since the last call."""

    def __init__(self) -> None:
        self._last = _counted()

    def meanwhile(self) -> Meanwhile | None:
        """Returns the use since the last call; None if the span is too short or the system does not tell."""
        before, self._last = self._last, _counted()
        if before is None or self._last is None:
            return None
        wall, own, busy, idle = (now - then for now, then in zip(self._last, before, strict=True))
        if wall < _SHORTEST:
            return None
        cores = len(os.sched_getaffinity(0))
        return Meanwhile(cores=cores, others=max(busy - own, 0.0) / wall, idle=max(idle, 0.0) / wall)


def _counted() -> tuple[float, float, float, float] | None:
    """Returns the seconds of the clock, of this process, of all on its cores, and of the idle cores."""
    try:
        lines = _COUNTS.read_text().splitlines()
        here = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return None  # not Linux
    busy = idle = 0
    for name, *words in (line.split() for line in lines if line.startswith("cpu")):
        if name in here:
            user, nice, system, unused, waits, *more = (int(word) for word in words)
            # Interrupts, and what the machine below took for other guests.
            busy, idle = busy + user + nice + system + sum(more[:3]), idle + unused + waits
    tick = 1 / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), time.process_time(), busy * tick, idle * tick
