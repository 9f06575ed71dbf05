"""The colours of scores: a scale that is logarithmic where losses span more than a decade."""

import math
from dataclasses import dataclass

from tfmb.report.appearance import ticks

from ..records import SearchRecord
from .appearance import score_of

__all__ = ["SCORE_COLOURS", "ScoreScale", "scale_of"]

# From the best score to the worst: dark shows best on white.
SCORE_COLOURS = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#e0c21f"]
# A few bad scores must not make all others one colour: those behind this share of the trials have the last colour.
_COLOURED_SHARE = 0.9
_DECADE = 10.0


@dataclass(frozen=True, kw_only=True)
class ScoreScale:
    """Where on a scale of colours a score lies.

    Attributes:
        low: the lowest score with a colour of its own.
        high: the highest; never equal to `low`.
        log: whether colours follow the logarithm of the score.
    """

    low: float
    high: float
    log: bool

    def place(self, score: float) -> float:
        """A score's place, between the scale's ends where it has a colour of its own."""
        return math.log10(max(score, self.low)) if self.log else score

    @property
    def ends(self) -> tuple[float, float]:
        """The places of `low` and `high`."""
        return self.place(self.low), self.place(self.high)

    def labels(self) -> tuple[list[float], list[str]]:
        """Places on a logarithmic scale, and the scores to be written there."""
        # More values than `ticks` would name by themselves: it chooses round ones.
        between = [self.low ** (1 - step / 9) * self.high ** (step / 9) for step in range(10)]
        scores = ticks(between, log=True)
        return [self.place(score) for score in scores], [f"{score:.3g}" for score in scores]


def scale_of(record: SearchRecord) -> ScoreScale:
    """The scale of a search's scores.

    A loss is better by a factor, so where losses span more than a decade the scale is logarithmic. What is to be high,
    such as an accuracy, differs most at its good end, which a logarithm would hide.
    """
    scores = [score for score in map(score_of, record.ranked()) if score is not None] or [0.0]
    best, worst = scores[0], scores[math.ceil(_COLOURED_SHARE * (len(scores) - 1))]
    if best == worst:
        pad = abs(best) * 0.01 or 1.0
        return ScoreScale(low=best - pad, high=best + pad, log=False)
    low, high = min(best, worst), max(best, worst)
    return ScoreScale(low=low, high=high, log=record.direction == "min" and low > 0 and high > _DECADE * low)
