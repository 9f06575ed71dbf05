"""The charts of a search, as Plotly figures; those of the space of hyper-parameters are in `landscape`."""

from typing import Any

from tfmb.environment.requirements import PAGE_MODULES, need_modules
from tfmb.report.appearance import GREY, INK, Chart, cut, escaped, framed, number, title_value_axis

from ..records import SearchRecord, TrialRecord
from .appearance import FATE_COLOURS, FATE_SYMBOLS, place_of_best, score_of, trial_in_words
from .landscape import map_chart, parallel_chart

__all__ = ["best_points", "charts", "curve_metric"]


def charts(record: SearchRecord) -> list[Chart]:
    """All charts of a search.

    Raises:
        ConfigError: Plotly is not installed.
    """
    need_modules("the report of a search", PAGE_MODULES)
    import plotly.graph_objects as objects

    return [make(record, objects) for make in (map_chart, _curves_chart, _best_so_far_chart, parallel_chart)]


def curve_metric(record: SearchRecord) -> str | None:
    """The metric of the learning curves: the objective, else `val_loss`, else the first that was written down."""
    names = dict.fromkeys(name for trial in record.trials for look in trial.history for name in look.metrics)
    return next((name for name in (record.objective, "val_loss") if name in names), next(iter(names), None))


def best_points(record: SearchRecord) -> list[tuple[float, float]]:
    """(seconds that ended trials took so far, best score so far), from the first trial that has one.

    Only trials that spent their whole budget count, as in `SearchRecord.best`; all ended ones where none did.
    """
    ended = _ended(record)
    whole = any(trial.fate == "completed" and score_of(trial) is not None for _, trial in ended)
    better = min if record.direction == "min" else max
    best, points = None, []
    for seconds, trial in ended:
        score = score_of(trial)
        if score is not None and (trial.fate == "completed" or not whole):
            best = score if best is None else better(best, score)
        if best is not None:
            points.append((seconds, best))
    return points


def _ended(record: SearchRecord) -> list[tuple[float, TrialRecord]]:
    """(seconds until then, trial) of those that ended, one after the other."""
    seconds, found = 0.0, []
    for trial in record.trials:
        if trial.fate != "running":
            seconds += max(number(trial.seconds) or 0.0, 0.0)
            found.append((seconds, trial))
    return found


def _curves_chart(record: SearchRecord, objects: Any) -> Chart:
    """The objective against examples, a line a trial."""
    title, metric = "Learning curves", curve_metric(record)
    if metric is None:
        return Chart(name="curves", title=title, note="No trial has been evaluated yet.")
    note = "A line is a trial, the thick one the best. Hover to see a trial's values."
    if metric != record.objective:
        why = f"The objective, {cut(record.objective)}, is no metric of an evaluation"
        note = f"{why}: {cut(metric)} is shown in its stead. {note}"
    figure = framed(objects, 460)
    best = place_of_best(record)
    heights: list[float] = []
    groups: set[str] = set()
    # The best is drawn last, above the others.
    for place in sorted(range(len(record.trials)), key=lambda place: place == best):
        trial = record.trials[place]
        curve = [(look.examples, number(look.metrics.get(metric))) for look in trial.history]
        finite = [height for _, height in curve if height is not None]
        if finite:
            group = "best" if place == best else trial.fate
            heights += finite
            figure.add_trace(_curve(curve, group, group not in groups, objects))
            figure.data[-1].update(text=trial_in_words(record, trial), meta=[escaped(metric, 30)])
            groups.add(group)
    if not heights:
        return Chart(name="curves", title=title, note=f"No trial has a finite {cut(metric)} yet.")
    figure.update_xaxes(title_text="examples drawn (number)", rangemode="tozero", tickformat=",")
    title_value_axis(figure, metric, heights)
    return Chart(name="curves", title=title, note=note, figure=figure)


def _curve(curve: list[tuple[int, float | None]], group: str, first: bool, objects: Any) -> Any:
    """The line of a trial; the first of its group stands in the legend for all."""
    best = group == "best"
    return objects.Scatter(
        x=[examples for examples, _ in curve],
        y=[height for _, height in curve],
        hovertemplate="%{text}<br>%{meta[0]} %{y:.6g} after %{x:,} examples<extra></extra>",
        mode="lines+markers",
        line={"color": INK if best else FATE_COLOURS.get(group, GREY), "width": 3.5 if best else 1.4},
        marker={"size": 7 if best else 4},
        opacity=1.0 if best else 0.55,
        name=escaped(group),
        legendgroup=escaped(group),
        showlegend=first,
    )


def _best_so_far_chart(record: SearchRecord, objects: Any) -> Chart:
    """The best score against the time that was spent."""
    title, points = "Best so far", best_points(record)
    if not points:
        return Chart(name="best-so-far", title=title, note="No trial that ended has a score yet.")
    note = "The line is the best score so far of the trials that spent their whole budget (of all, where none did)."
    figure = framed(objects, 380)
    figure.add_trace(
        objects.Scatter(
            x=[seconds for seconds, _ in points],
            y=[score for _, score in points],
            hovertemplate="best so far %{y:.6g} at %{x:,.4~g} s<extra></extra>",
            mode="lines",
            line={"color": INK, "width": 2.5, "shape": "hv"},
            name="best so far",
        )
    )
    for fate in dict.fromkeys(trial.fate for _, trial in _ended(record)):
        scored = [(seconds, t) for seconds, t in _ended(record) if t.fate == fate and score_of(t) is not None]
        if scored:
            look = {"symbol": FATE_SYMBOLS.get(fate, "square-open"), "color": FATE_COLOURS.get(fate, GREY), "size": 8}
            figure.add_trace(
                objects.Scatter(
                    x=[seconds for seconds, _ in scored],
                    y=[trial.score for _, trial in scored],
                    text=[trial_in_words(record, trial) for _, trial in scored],
                    hovertemplate="%{text}<br>ended at %{x:,.4~g} s<extra></extra>",
                    mode="markers",
                    marker=look,
                    name=escaped(fate),
                )
            )
    figure.update_xaxes(title_text="time of ended trials, added up (s)", rangemode="tozero", tickformat=",")
    scores = [score for score in map(score_of, record.trials) if score is not None]
    title_value_axis(figure, record.objective, scores)
    return Chart(name="best-so-far", title=title, note=note, figure=figure)
