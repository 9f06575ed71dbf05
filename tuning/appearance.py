"""How a report shows things: values as short words that are safe in HTML, colours, ticks and a figure's frame."""

import html
import itertools
import math
import numbers
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .records import FATES, SearchRecord, TrialRecord

__all__ = [
    "FATE_COLOURS",
    "FATE_SYMBOLS",
    "GREY",
    "INK",
    "SCORE_COLOURS",
    "Chart",
    "colour_range",
    "cut",
    "duration",
    "escaped",
    "fates_in_words",
    "framed",
    "names_of_values",
    "number",
    "place_of_best",
    "score_of",
    "ticks",
    "title_value_axis",
    "trial_in_words",
]

# Fixed, whatever the browser's theme: the page sets its own background. Told apart by the colour-blind.
FATE_COLOURS = {"completed": "#4477aa", "pruned": "#cc7a00", "diverged": "#c0392b", "running": "#6b6b6b"}
FATE_SYMBOLS = {"completed": "circle", "pruned": "circle-open", "diverged": "x", "running": "diamond-open"}
# From the best score to the worst: dark shows best on white.
SCORE_COLOURS = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#e0c21f"]
INK, GREY, _GRID = "#222222", "#8a8a8a", "#dddddd"
# A few bad scores must not make all others one colour: those behind this share of the trials have the last colour.
_COLOURED_SHARE = 0.9
_MOST_HOVER_VALUES = 15
# Sums and ratios of what is drawn must stay finite.
_LARGEST = 1e150
_LOG_RATIO = 30


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart, or why there is none.

    Attributes:
        name: its id in the page.
        title: a heading.
        note: how to read it, as plain text.
        figure: Plotly's; None where there is nothing to draw.
    """

    name: str
    title: str
    note: str
    figure: Any = None


def number(value: Any) -> float | None:
    """A finite number as a float; None for text, bool, NaN, and what is too large to be drawn."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if abs(found) <= _LARGEST else None


def cut(value: Any, most: int = 60) -> str:
    """One line of text of at most so many characters. Not escaped."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    # A lone surrogate could not be written.
    text = " ".join(text[: 4 * most].encode("utf-8", "backslashreplace").decode().split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def escaped(value: Any, most: int = 60) -> str:
    """The same for HTML, and for Plotly's titles and hovers, which read some HTML."""
    return html.escape(cut(value, most))


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


def duration(seconds: float) -> str:
    """Such as `1 h 5 min` or `7.3 s`."""
    found = max(number(seconds) or 0.0, 0.0)
    if found < 59.5:
        return f"{found:.2g} s"
    minutes, rest = divmod(round(found), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


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


def ticks(values: Sequence[float], log: bool) -> list[float]:
    """Readable places on an axis: the values themselves where they are few, else round numbers between them."""
    low, high = min(values), max(values)
    few = sorted(set(values))
    span = math.log(high / low) if log else high - low
    gaps = [math.log(b / a) if log else b - a for a, b in itertools.pairwise(few)]
    if len(few) <= 8 and all(gap > 0.05 * span for gap in gaps):
        return few
    if log and high >= 10 * low:
        steps = (1, 2, 5) if high < 2000 * low else (1,)
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        powers = range(first, last + 1, math.ceil((last - first) / 10))
        found = [float(f"{step}e{power}") for power in powers for step in steps]
    else:
        size = 10.0 ** math.floor(math.log10(span if not log else high - low))
        size *= next((step for step in (0.1, 0.2, 0.5) if (high - low) / (step * size) <= 7), 1.0)
        found = [place * size for place in range(math.ceil(low / size), math.floor(high / size) + 1)]
    return [place for place in found if low <= place <= high] or [low, high]


def title_value_axis(figure: Any, label: str, values: Sequence[float]) -> None:
    """Titles the upright axis, and makes it a log one where its positive values differ by more than thirty times."""
    figure.update_yaxes(title_text=escaped(label, 40))
    if min(values) > 0 and max(values) > _LOG_RATIO * min(values):
        places = ticks(values, log=True)
        labels = {"tickvals": places, "ticktext": [f"{place:g}" for place in places]}
        figure.update_yaxes(title_text=f"{escaped(label, 30)} (log scale)", type="log", **labels)


def framed(objects: Any, height: int) -> Any:
    """An empty figure of so many pixels' height, in the page's colours."""
    axis = {"gridcolor": _GRID, "linecolor": GREY, "zeroline": False, "showline": True, "automargin": True}
    return objects.Figure(
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 70, "r": 20, "t": 40, "b": 60},
            "paper_bgcolor": "#ffffff",
            "plot_bgcolor": "#ffffff",
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
            "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": {"color": INK}},
            "hovermode": "closest",
            "showlegend": True,
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "xaxis": axis,
            "yaxis": axis,
        }
    )
