"""How a search's report shows trials: their fates, scores and values, in words and colours."""

import math
from collections import Counter

from tfmb.report.appearance import escaped, number

from .records import FATES, SearchRecord, TrialRecord

__all__ = [
    "FATE_COLOURS",
    "FATE_SYMBOLS",
    "SCORE_COLOURS",
    "colour_range",
    "fates_in_words",
    "names_of_values",
    "place_of_best",
    "score_of",
    "trial_in_words",
]

# Fixed, whatever the browser's theme: the page sets its own background. Told apart by the colour-blind.
FATE_COLOURS = {"completed": "#4477aa", "pruned": "#cc7a00", "diverged": "#c0392b", "running": "#6b6b6b"}
FATE_SYMBOLS = {"completed": "circle", "pruned": "circle-open", "diverged": "x", "running": "diamond-open"}
# From the best score to the worst: dark shows best on white.
SCORE_COLOURS = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#e0c21f"]
# A few bad scores must not make all others one colour: those behind this share of the trials have the last colour.
_COLOURED_SHARE = 0.9
_MOST_HOVER_VALUES = 15


def score_of(trial: TrialRecord) -> float | None:
    """A trial's score; None where it has none that is finite."""
    return number(trial.score)


def place_of_best(record: SearchRecord) -> int | None:
    """Where in `trials` the best one stands."""
    best = record.best
    return next((place for place, trial in enumerate(record.trials) if trial is best), None)


def names_of_values(record: SearchRecord) -> list[str]:
    """All hyper-parameters of a search: batch size and learning rate, then the others as they came."""
    names = dict.fromkeys(name for trial in record.trials for name in trial.values)
    first = [name for name in ("batch_size", "learning_rate") if name in names]
    return first + [name for name in names if name not in first]


def fates_in_words(record: SearchRecord) -> str:
    """Such as `20 completed, 3 diverged`. Not escaped."""
    counts = Counter(trial.fate for trial in record.trials)
    return ", ".join(f"{counts[fate]} {fate}" for fate in dict.fromkeys((*FATES, *counts)) if counts[fate])


def trial_in_words(record: SearchRecord, trial: TrialRecord) -> str:
    """What a hover says of a trial: escaped lines."""
    lines = [f"<b>trial {escaped(trial.trial)}</b>, {escaped(trial.fate)}"]
    if trial.cause:
        lines.append(escaped(trial.cause, 80))
    if trial.score is not None:
        lines.append(f"{escaped(record.objective)}: {escaped(trial.score)}")
    shown = list(trial.values.items())[:_MOST_HOVER_VALUES]
    lines += [f"{escaped(name)}: {escaped(value)}" for name, value in shown]
    if left := len(trial.values) - len(shown):
        lines.append(f"and {left} more: see the table")
    return "<br>".join(lines)


def colour_range(record: SearchRecord) -> tuple[float, float]:
    """The lowest and highest score that have a colour of their own; never equal."""
    scores = [score for score in map(score_of, record.ranked()) if score is not None] or [0.0]
    best, worst = scores[0], scores[math.ceil(_COLOURED_SHARE * (len(scores) - 1))]
    if best == worst:
        pad = abs(best) * 0.01 or 1.0
        return best - pad, best + pad
    return min(best, worst), max(best, worst)
