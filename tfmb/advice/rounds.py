"""Updates of several batch sizes, timed in turns until the machine was quiet for long enough, or for long at all."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tfmb.advice.batch_curve import HIGH, LOW
from tfmb.advice.processor import Meanwhile

__all__ = ["TELLS", "Rounds", "draws_of", "time_in_rounds"]

# What is not known to this factor is not known: from one power of two to the next the time to a target differs by
# about as much near its least (digits, MLP: 0.13, 0.11, 0.14 s at 64, 128, 256).
TELLS = 1.25
# Rounds of an attempt, attempts, and rounds without disturbance that are enough at the end of the last one.
_ROUNDS, _ATTEMPTS, _ENOUGH = 5, 2, 3
# The last two rounds took so many times the first two. On a quiet machine it was 0.98 to 1.03 in eight attempts of
# nine, and 0.91 in one (digits, MLP and CNN; Intel Xeon, 2 cores, 2026-11-29); beside a test suite 0.60 to 0.79.
_PACE = 1.15
_DRAWS, _SEED = 2000, 1


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The result of the rounds.

    Attributes:
        seconds: of an update, for each batch size one of each round that counts.
        share_left: of the cores, by others, in those rounds: 1.0 where they were not disturbed.
        trouble: the fault that lasted up to the end; None if there was none.
    """

    seconds: dict[int, tuple[float, ...]]
    share_left: float = 1.0
    trouble: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Round:
    seconds: dict[int, float]
    meanwhile: Meanwhile | None

    @property
    def disturbed(self) -> bool:
        """Whether others used the cores; False if the system does not tell."""
        return self.meanwhile is not None and self.meanwhile.disturbed


def time_in_rounds(
    time_update: Callable[[int], float],
    sizes: Sequence[int],
    meanwhile: Callable[[], Meanwhile | None],
    *,
    is_over: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
) -> Rounds:
    """Times every batch size once a round, there and back, so that what changes with time falls on all alike.

    If others had the cores, the pace changed or times differ too much, it says so and takes as many rounds again.
    Rounds in which others had the cores count only if there are no others.

    Args:
        time_update: batch size -> seconds of an update.
        sizes: at least one.
        meanwhile: the use of the cores since the last call.
        is_over: whether the time is over, before each round but the first.
        say: gets a line where it measures again.
    """
    made: list[_Round] = []
    trouble = ""
    meanwhile()
    for attempt in range(_ATTEMPTS):
        if trouble:
            say(f"{trouble}; measured again")
        if made and not _is_busy(made, _ROUNDS) and _has_changed(_counting(made)):
            made = []  # before the pace changed it was another machine, so to speak
        for number in range(_ROUNDS):
            if number and is_over():
                break
            found = {size: time_update(size) for size in (sizes if len(made) % 2 == 0 else sizes[::-1])}
            made.append(_Round(seconds=found, meanwhile=meanwhile()))
        trouble = _trouble(made, _ROUNDS if attempt < _ATTEMPTS - 1 else _ENOUGH)
        if not trouble or is_over():
            break
    counting = _counting(made)
    return Rounds(
        seconds={size: tuple(one.seconds[size] for one in counting) for size in sizes},
        share_left=_share_left(counting) if _is_busy(made, _ENOUGH) else 1.0,
        trouble=trouble or None,
    )


def draws_of(seconds: Sequence[float], share_left: float = 1.0, key: int = 0) -> np.ndarray:
    """Returns `[2000]` medians that other rounds might have given as well (bootstrap).

    The same rounds are drawn for all batch sizes, so that a slow round is slow for all. Where others had cores, an
    update might have taken any time down to the share that they left: how much of it the process waited for is not
    known, and is drawn for each batch size alone.

    Args:
        seconds: of each round.
        share_left: of the cores, by others.
        key: of the batch size.
    """
    chosen = np.random.default_rng(_SEED).integers(len(seconds), size=(_DRAWS, len(seconds)))
    drawn = np.median(np.asarray(seconds)[chosen], axis=1)
    return np.asarray(drawn * np.random.default_rng([_SEED, key]).uniform(share_left, 1.0, _DRAWS))


def _undisturbed(made: Sequence[_Round]) -> list[_Round]:
    return [one for one in made if not one.disturbed]


def _is_busy(made: Sequence[_Round], enough: int) -> bool:
    """Whether too few of the rounds had the cores for themselves."""
    return len(_undisturbed(made)) < min(enough, len(made))


def _counting(made: Sequence[_Round]) -> Sequence[_Round]:
    return made if _is_busy(made, _ENOUGH) else _undisturbed(made)


def _share_left(made: Sequence[_Round]) -> float:
    """Returns the mean share that others left: of all cores, or of one that two had to share."""
    known = [one.meanwhile for one in made if one.meanwhile is not None]
    left = [min(1 - one.others / one.cores, 1 / (1 + min(one.others, 1.0))) for one in known]
    return max(statistics.fmean(left), 0.0) if left else 1.0


def _trouble(made: Sequence[_Round], enough: int) -> str:
    """Returns why the rounds give no answer; empty if they give one."""
    if _is_busy(made, enough):
        known = [one.meanwhile for one in made if one.meanwhile is not None]
        others = statistics.fmean(one.others for one in known)
        return f"the machine is busy: while updates were timed, others took {others:.1f} of {known[0].cores} core(s)"
    counting = _counting(made)
    if _has_changed(counting):
        return (
            f"the pace changed: in the last rounds an update took {_pace(counting):.2g} times as long as in the first"
        )
    for size in counting[0].seconds:
        found = [one.seconds[size] for one in counting]
        low, middle, high = np.percentile(draws_of(found), [LOW, 50.0, HIGH])
        if max(high / middle, middle / low) > TELLS:
            least, most = 1000 * min(found), 1000 * max(found)
            return f"the pace is unsteady: an update of batch size {size} took {least:.2g} to {most:.2g} ms"
    return ""


def _has_changed(made: Sequence[_Round]) -> bool:
    return abs(math.log(_pace(made))) > math.log(_PACE)


def _pace(made: Sequence[_Round]) -> float:
    """Returns the last two rounds over the first two: a median over batch sizes, to be safe from chance."""
    if len(made) < 4:
        return 1.0
    first, last = made[:2], made[-2:]
    sums = [(sum(r.seconds[s] for r in last), sum(r.seconds[s] for r in first)) for s in made[0].seconds]
    return statistics.median(late / early for late, early in sums)
