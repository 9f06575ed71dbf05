"""The two charts of where in the space of hyper-parameters the good trials lie: a map, and parallel coordinates."""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

from tfmb.report.appearance import GREY, INK, LOG_RATIO, Chart, cut, escaped, framed, number, ticks, title_value_axis

from ..records import SearchRecord, TrialRecord
from .appearance import (
    FATE_COLOURS,
    FATE_SYMBOLS,
    names_of_values,
    place_of_best,
    score_of,
    trial_in_words,
)
from .colours import SCORE_COLOURS, ScoreScale, scale_of

__all__ = ["map_chart", "parallel_chart"]

_LOG_NAMES = ("batch_size", "learning_rate")
# The map's background is binned where so many trials have a score: of fewer, a cell would be a single trial.
_FEWEST_BINNED = 30
# As many different batch sizes have a column each; more of them, and learning rates, share this many.
_MOST_COLUMNS, _BINS = 12, 8
# Plotly draws 60 axes at most; a screen shows fewer.
_MOST_AXES = 40
_MOST_LABELS = 25
# In pixels: from one axis to the next, so that labels do not meet, and beside the outermost ones.
_WIDTH_OF_AXIS, _SIDES = 120, 200
_HOVER = "%{text}<extra></extra>"
# Labels must be read above hundreds of lines.
_HALO = ", ".join(["0 0 3px #ffffff"] * 4)
# Texts of one value lie apart by this share of the way to the next, so that their lines can be told apart.
_SPREAD = 0.3


def map_chart(record: SearchRecord, objects: Any) -> Chart:
    """Batch size by learning rate, coloured by score; the score by one of them where the other was not searched."""
    names = [n for n in _LOG_NAMES if any(_positive(trial, n) for trial in record.trials)]
    if not names:
        note = "No trial has a batch size or a learning rate that is a number above 0."
        return Chart(name="map", title="Batch size and learning rate", note=note)
    both = len(names) == 2
    title = "Batch size and learning rate" if both else f"{names[0].replace('_', ' ').capitalize()} and score"
    spots = {}
    for place, trial in enumerate(record.trials):
        x, y = _positive(trial, names[0]), _positive(trial, names[1]) if both else score_of(trial)
        if x is not None and y is not None:
            spots[place] = (x, y)
    note = (
        "The darker, the better. Crosses diverged, open crosses failed, open circles were pruned or still run. "
        "The star is the best trial."
    )
    if left_out := len(record.trials) - len(spots):
        note += f" {left_out} trial(s) have no place here: see the table."
    if not spots:
        return Chart(name="map", title=title, note=f"No trial has a place here yet: {left_out} stand in the table.")
    figure = framed(objects, 540)
    scale = scale_of(record)
    colours = SCORE_COLOURS if record.direction == "min" else SCORE_COLOURS[::-1]
    title_of_bar = {"text": f"{escaped(record.objective, 20)}{' (log scale)' if scale.log else ''}", "side": "right"}
    bar: dict[str, Any] = {"title": title_of_bar, "thickness": 14, "outlinewidth": 0}
    if scale.log:
        bar["tickvals"], bar["ticktext"] = scale.labels()
    low, high = scale.ends
    figure.update_layout(coloraxis={"colorscale": colours, "cmin": low, "cmax": high, "colorbar": bar})
    cells = [(x, y, score_of(record.trials[place])) for place, (x, y) in spots.items()]
    scored = [(x, y, score) for x, y, score in cells if score is not None]
    if len(scored) >= 10:
        note += " The worst tenth share one colour."
    if both and len(scored) >= _FEWEST_BINNED:
        figure.add_trace(_binned(scored, scale, objects))
        note += " The background is the median score of each cell."
    for kind in sorted({_kind(record.trials[place]) for place in spots}):
        group = {place: spot for place, spot in spots.items() if _kind(record.trials[place]) == kind}
        figure.add_trace(_markers(record, group, kind, scale, objects))
    best = place_of_best(record)
    if best is not None and best in spots:
        star = {"symbol": "star", "size": 17, "color": "#ffd400", "line": {"color": INK, "width": 1.5}}
        figure.add_trace(
            objects.Scatter(
                x=[spots[best][0]],
                y=[spots[best][1]],
                text=[trial_in_words(record, record.trials[best])],
                hovertemplate=_HOVER,
                mode="markers",
                marker=star,
                name="best",
            )
        )
    _make_log(figure.layout.xaxis, names[0], [x for x, _ in spots.values()])
    if both:
        _make_log(figure.layout.yaxis, names[1], [y for _, y in spots.values()])
    else:
        title_value_axis(figure, record.objective, [y for _, y in spots.values()])
    return Chart(name="map", title=title, note=note, figure=figure)


def parallel_chart(record: SearchRecord, objects: Any) -> Chart:
    """Every trial as a line over all hyper-parameters and the score."""
    title = "All hyper-parameters"
    names = names_of_values(record)
    if not names:
        return Chart(name="parallel", title=title, note="No trial has a hyper-parameter.")
    note = "A line is a trial: dark is better, red has no score. Drag along an axis to keep only the lines through it."
    note += " This chart needs a browser with WebGL."
    if len(names) >= _MOST_AXES:
        note += f" Only {_MOST_AXES - 1} of {len(names)} hyper-parameters are drawn."
        names = names[: _MOST_AXES - 1]
    axes = [_axis(name, [trial.values.get(name) for trial in record.trials]) for name in names]
    # A trial without a score ends beyond the worst one.
    axes.append(_axis(record.objective, [score_of(t) for t in record.trials], above=record.direction == "min"))
    # Plotly draws the highest colour last: the best must not lie under the others, nor under those without a score.
    scale = scale_of(record)
    best, worst = scale.ends if record.direction == "min" else scale.ends[::-1]
    places = [None if score is None else scale.place(score) for score in map(score_of, record.trials)]
    goodness = [-1.0 if place is None else max((place - worst) / (best - worst), 0.0) for place in places]
    red = FATE_COLOURS["diverged"]
    scored = [[0.5 + place / (2 * len(SCORE_COLOURS) - 2), colour] for place, colour in enumerate(SCORE_COLOURS[::-1])]
    figure = framed(objects, 460)
    colours = [[0.0, red], [0.5, red], *scored]
    line = {"color": goodness, "colorscale": colours, "cmin": -1, "cmax": 1, "showscale": False}
    tick_font = {"size": 12, "weight": 600, "shadow": _HALO}
    figure.add_trace(objects.Parcoords(dimensions=axes, line=line, tickfont=tick_font, labelfont={"size": 13}))
    figure.update_layout(margin={"l": 110, "r": 90, "t": 60, "b": 30})
    return Chart(
        name="parallel", title=title, note=note, figure=figure, least_width=_SIDES + _WIDTH_OF_AXIS * (len(axes) - 1)
    )


def _positive(trial: TrialRecord, name: str) -> float | None:
    value = number(trial.values.get(name))
    return value if value is not None and value > 1e-150 else None


def _kind(trial: TrialRecord) -> tuple[str, bool]:
    """What decides a marker's look: fate, and whether it is coloured by its score."""
    return trial.fate, trial.fate not in ("diverged", "failed") and score_of(trial) is not None


def _markers(
    record: SearchRecord,
    spots: dict[int, tuple[float, float]],
    kind: tuple[str, bool],
    scale: ScoreScale,
    objects: Any,
) -> Any:
    fate, coloured = kind
    symbol = FATE_SYMBOLS.get(fate, "square-open")
    trials = [record.trials[place] for place in spots]
    line = {"width": 2.5} if symbol.endswith("-open") else {"width": 1, "color": "#ffffff"}
    marker: dict[str, Any] = {"symbol": symbol, "size": 11, "line": line}
    if coloured:
        scores = [score for score in map(score_of, trials) if score is not None]  # all: the kind says so
        marker |= {"color": [scale.place(score) for score in scores], "coloraxis": "coloraxis"}
    else:
        marker |= {"color": FATE_COLOURS["diverged"] if fate in ("diverged", "failed") else GREY}
    return objects.Scatter(
        x=[x for x, _ in spots.values()],
        y=[y for _, y in spots.values()],
        text=[trial_in_words(record, trial) for trial in trials],
        hovertemplate=_HOVER,
        mode="markers",
        marker=marker,
        name=escaped(fate) if coloured or fate in ("diverged", "failed") else f"{escaped(fate)}, no score",
    )


def _binned(cells: Sequence[tuple[float, float, float]], scale: ScoreScale, objects: Any) -> Any:
    """A heat map of median scores."""
    columns, rows = _edges([x for x, _, _ in cells]), _edges([y for _, y, _ in cells])
    inside: dict[tuple[int, int], list[float]] = {}
    for x, y, score in cells:
        inside.setdefault((_bin(rows, y), _bin(columns, x)), []).append(score)
    medians = [
        [
            scale.place(statistics.median(inside[row, column])) if (row, column) in inside else None
            for column in range(len(columns) - 1)
        ]
        for row in range(len(rows) - 1)
    ]
    return objects.Heatmap(x=columns, y=rows, z=medians, coloraxis="coloraxis", opacity=0.35, hoverinfo="skip")


def _edges(values: Sequence[float]) -> list[float]:
    """Where cells end, outermost ones included: between the values where they are few, else at equal ratios."""
    few = sorted(set(values))
    if len(few) == 1:
        return [few[0] / 2, few[0] * 2]
    if len(few) <= _MOST_COLUMNS:
        middle = [math.sqrt(a) * math.sqrt(b) for a, b in itertools.pairwise(few)]
        return [few[0] * (few[0] / middle[0]), *middle, few[-1] * (few[-1] / middle[-1])]
    ratio = few[-1] / few[0]
    return [few[0] * ratio ** (place / _BINS) for place in range(_BINS + 1)]


def _bin(edges: list[float], value: float) -> int:
    """Which cell a value is in; the last one holds its upper end."""
    return next((place for place, edge in enumerate(edges[1:-1]) if value < edge), len(edges) - 2)


def _make_log(axis: Any, name: str, values: Sequence[float]) -> None:
    """A log axis with readable ticks and some room at both ends."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = 0.06 * (high - low) or 0.3
    places = ticks(values, log=True)
    unit = "examples, log scale" if name == "batch_size" else "log scale"
    axis.update(type="log", range=[low - room, high + room], title_text=f"{name.replace('_', ' ')} ({unit})")
    axis.update(tickvals=places, ticktext=[f"{place:g}" for place in places])


def _axis(name: str, values: list[Any], above: bool = False) -> dict[str, Any]:
    """An axis of the parallel coordinates; values that are missing or not finite lie beyond an end, above or below."""
    given = [value for value in values if value is not None]
    if all(isinstance(value, float) or number(value) is not None for value in given):
        return _axis_of_numbers(name, [number(value) for value in values], above)
    # Plotly reads no HTML in these labels, so they are not escaped.
    found = {str(value): value for value in given}
    texts = sorted(found, key=lambda text: (number(found[text]) is None, number(found[text]) or 0.0, text))
    places = {text: float(place) for place, text in enumerate(texts)}
    every = math.ceil(len(texts) / _MOST_LABELS)
    labels = [(places[text], cut(text, 18)) for text in texts[::every]]
    positions = [-1.0 if value is None else places[str(value)] for value in values]
    if len(positions) > len(texts):
        positions = [spot + _SPREAD * (place * 0.618 % 1 - 0.5) for place, spot in enumerate(positions)]
    return _dimension(name, positions, labels, missing=-1.0 if None in values else None)


def _axis_of_numbers(name: str, values: list[float | None], above: bool) -> dict[str, Any]:
    present = [value for value in values if value is not None] or [0.0]
    log = min(present) > 0 and (name in _LOG_NAMES or max(present) > LOG_RATIO * min(present))
    labels = [(math.log10(place) if log else place, f"{place:.6g}") for place in ticks(present, log)]
    scaled = [None if value is None else math.log10(value) if log else value for value in values]
    ends = [value for value in scaled if value is not None] or [0.0]
    room = 0.12 * (max(ends) - min(ends)) or 1.0
    missing = max(ends) + room if above else min(ends) - room
    if not any(value is not None for value in values):
        labels = []
    positions = [missing if value is None else value for value in scaled]
    label = f"{name} (log)" if log else name
    return _dimension(label, positions, labels, missing=missing if None in values else None)


def _dimension(
    name: str, positions: list[float], labels: list[tuple[float, str]], missing: float | None
) -> dict[str, Any]:
    if missing is not None:
        labels = [*labels, (missing, "none")]
    low, high = min(positions), max(positions)
    if low == high:
        low, high = low - 1.0, high + 1.0
    return {
        "label": escaped(name, 24),
        "values": positions,
        "range": [low, high],
        "tickvals": [place for place, _ in labels],
        "ticktext": [text for _, text in labels],
    }
