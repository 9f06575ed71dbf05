"""The appearance of pages: values as short words that are safe in HTML, ticks, and a figure's frame."""

import html
import itertools
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "GREY",
    "INK",
    "LOG_RATIO",
    "Chart",
    "cut",
    "duration",
    "escaped",
    "framed",
    "log_axis",
    "number",
    "scrolling",
    "table",
    "ticks",
    "title_value_axis",
]

INK, GREY, _GRID = "#222222", "#8a8a8a", "#dddddd"
# Sums and ratios of what is drawn must stay finite.
_LARGEST = 1e150
# Values that differ by more have a log axis.
LOG_RATIO = 30


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart, or the reason why there is none.

    Attributes:
        name: its id in the page.
        title: a heading.
        note: how to read it, as plain text.
        figure: Plotly's; None if there is nothing to draw.
        least_width: in pixels; a narrower screen scrolls the chart in its own box.
    """

    name: str
    title: str
    note: str
    figure: Any = None
    least_width: int = 0


def scrolling(table: str) -> str:
    """A table in a box of its own, which scrolls where the screen is narrower."""
    return f'<div class="wide">\n{table}\n</div>'


def table(head: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    """A table, whose rows are HTML already, in a box that scrolls.

    Args:
        head: the titles of its columns.
        rows: each a `<tr>`.
        kind: attributes of each title.
    """
    titles = "".join(f'<th scope="col"{kind}>{escaped(name)}</th>' for name in head)
    lines = "\n".join(rows)
    return scrolling(f"<table>\n<thead><tr>{titles}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>")


def log_axis(figure: Any, axis: str, title: str, values: Sequence[float]) -> None:
    """Titles a figure's `"x"` or `"y"` axis, and makes it a log one with readable places."""
    places = ticks([value for value in values if value > 0], log=True)
    labels = {"tickvals": places, "ticktext": [f"{place:g}" for place in places]}
    figure.update_layout({f"{axis}axis": {"title_text": title, "type": "log", **labels}})


def number(value: Any) -> float | None:
    """Returns a finite number as a float; None for text, bool, NaN, and numbers too large to be drawn."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if abs(found) <= _LARGEST else None


def cut(value: Any, most: int = 60) -> str:
    """Returns one line of text of at most `most` characters. The text is not escaped."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    # A lone surrogate could not be written.
    text = " ".join(text[: 4 * most].encode("utf-8", "backslashreplace").decode().split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def escaped(value: Any, most: int = 60) -> str:
    """Returns `cut`'s line, safe for HTML, and for Plotly's titles and hovers, which read some HTML."""
    return html.escape(cut(value, most))


def duration(seconds: float) -> str:
    """Returns a duration in words, such as `1 h 5 min` or `7.3 s`."""
    found = max(number(seconds) or 0.0, 0.0)
    if found < 59.5:
        return f"{found:.2g} s"
    minutes, rest = divmod(round(found), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


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
    if min(values) > 0 and max(values) > LOG_RATIO * min(values):
        log_axis(figure, "y", f"{escaped(label, 30)} (log scale)", values)


def framed(objects: Any, height: int) -> Any:
    """Returns an empty figure, `height` pixels high, in the page's colours."""
    axis = {"gridcolor": _GRID, "linecolor": GREY, "zeroline": False, "showline": True, "automargin": True}
    return objects.Figure(
        layout={
            "template": "none",
            "height": height,
            "margin": {"l": 60, "r": 20, "t": 40, "b": 60},
            "paper_bgcolor": "#ffffff",
            "plot_bgcolor": "#ffffff",
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
            "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": {"color": INK}},
            "hovermode": "closest",
            "showlegend": True,
            # Under the plot, whatever the axis takes: above it the toolbar would cover it on a narrow screen.
            "legend": {"orientation": "h", "x": 0, "yref": "container", "y": 0, "yanchor": "bottom"},
            "xaxis": axis,
            "yaxis": axis,
        }
    )
