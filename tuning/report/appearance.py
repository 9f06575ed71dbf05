"""How a search's report shows trials: their fates, scores and values, in words and colours."""

from collections import Counter

from tfmb.report.appearance import escaped, number

from ..records import FATES, SearchRecord, TrialRecord

__all__ = [
    "FATE_COLOURS",
    "FATE_SYMBOLS",
    "fates_in_words",
    "names_of_values",
    "place_of_best",
    "score_of",
    "trial_in_words",
]

# Fixed, whatever the browser's theme: the page sets its own background. Told apart by the colour-blind.
FATE_COLOURS = {
    "completed": "#4477aa",
    "pruned": "#cc7a00",
    "diverged": "#c0392b",
    "failed": "#7d3c98",
    "running": "#6b6b6b",
}
FATE_SYMBOLS = {
    "completed": "circle",
    "pruned": "circle-open",
    "diverged": "x",
    "failed": "x-open",
    "running": "diamond-open",
}
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
