"""Advice as one HTML page: the curves that it rests on, and what was measured."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfmb.advice.rate_curve import RateCurve
from tfmb.advice.records import Advice
from tfmb.environment.requirements import PAGE_MODULES, need_modules
from tfmb.errors import ConfigError
from tfmb.report.appearance import GREY, INK, Chart, duration, escaped, framed, log_axis, table
from tfmb.report.page import write_page

__all__ = ["draw_with", "figure_of", "rate_chart", "write_advice", "write_rate_curve"]

BLUE, ORANGE, RED, _BAND = "#4477aa", "#cc7a00", "#c0392b", "rgba(68, 119, 170, 0.18)"
_HEIGHT = 400
# Six lines stand in its legend, one below the other on a narrow screen.
_HEIGHT_OF_RANGE = 500


def write_advice(advice: Advice, path: Path) -> None:
    """Writes advice as a page that needs no network.

    Raises:
        ConfigError: Plotly is not installed.
        StorageError: the page cannot be written; an old one stays.
    """
    charts = _charts(advice)
    sections = [f"<p>{sentence}</p>" for sentence in _sentences(advice)]
    write_page(path, f"Advice on {advice.name}", f"Advice on {advice.name}", sections, charts, _table(advice))


def figure_of(advice: Advice, name: str) -> Any:
    """Returns one of the page's charts, as a Plotly figure.

    Raises:
        ConfigError: Plotly is not installed, there is no such chart, or nothing to draw in it.
    """
    charts = {chart.name: chart for chart in _charts(advice)}
    if name not in charts:
        raise ConfigError(f"there is no chart {name!r}: give one of {', '.join(charts)}")
    if charts[name].figure is None:
        raise ConfigError(f"the chart {name!r} is empty: {charts[name].note}")
    return charts[name].figure


def _charts(advice: Advice) -> list[Chart]:
    objects = draw_with()
    return [
        _updates_chart(advice, objects),
        _seconds_chart(advice, objects),
        _rates_chart(advice, objects),
        _throughput_chart(advice, objects),
        *([] if advice.sweep is None else [rate_chart(advice.sweep, objects)]),
    ]


def write_rate_curve(curve: RateCurve, path: Path, name: str) -> None:
    """Writes a range test as a page. Raises as `write_advice` does."""
    found = "undetermined" if curve.learning_rate is None else f"learning rate {curve.learning_rate:.3g}"
    section = f"<p><strong>{escaped(found)}</strong>: {escaped(curve.reason, 300)}.</p>"
    write_page(path, f"Range test of {name}", f"Range test of {name}", [section], [rate_chart(curve, draw_with())])


def draw_with() -> Any:
    """Plotly's figures.

    Raises:
        ConfigError: it is not installed.
    """
    need_modules("a page with charts", PAGE_MODULES)
    import plotly.graph_objects as objects

    return objects


def rate_chart(curve: RateCurve, objects: Any) -> Chart:
    """The loss over the learning rate, and the rates that matter."""
    title, note = "Range test", "The loss of each update while the learning rate grows; the line is its running mean."
    finite = [(rate, loss) for rate, loss in zip(curve.learning_rates, curve.losses, strict=True) if _drawable(loss)]
    if not finite:
        return Chart(name="range-test", title=title, note="No update had a finite loss.")
    figure = framed(objects, _HEIGHT_OF_RANGE)
    rates = [rate for rate, _ in finite]
    figure.add_trace(_dots(rates, [loss for _, loss in finite], "loss of an update", GREY, objects, size=4))
    smooth = [value if _drawable(value) else None for value in curve.smoothed]
    figure.add_trace(
        objects.Scatter(
            x=rates, y=smooth[: len(rates)], mode="lines", line={"color": INK, "width": 2.5}, name="smoothed"
        )
    )
    low = min(value for value in smooth if value is not None) if any(v is not None for v in smooth) else 0.0
    first = smooth[0] or 1.0
    for name, rate, colour in (
        ("steepest", curve.steepest, BLUE),
        ("valley", curve.valley, ORANGE),
        ("edge of divergence", curve.edge, RED),
        ("advice", curve.learning_rate, INK),
    ):
        if rate is not None:
            line = {"color": colour, "width": 2, "dash": "solid" if name == "advice" else "dash"}
            figure.add_trace(
                objects.Scatter(
                    x=[rate, rate], y=[low, first], mode="lines", line=line, name=f"{name} {rate:.3g}", hoverinfo="name"
                )
            )
    log_axis(figure, "x", "learning rate", rates)
    top = max(first * 1.5, low * 2)
    figure.update_yaxes(title_text="training loss", range=[min(low, 0.0), top])
    return Chart(name="range-test", title=title, note=note, figure=figure)


def _updates_chart(advice: Advice, objects: Any) -> Chart:
    """S(B): updates to the target, measured and fitted."""
    title = "Updates to the target"
    reached = [run for run in advice.runs if run.updates is not None]
    if advice.curve is None or not reached or not advice.predictions:
        return Chart(name="updates", title=title, note="Too few batch sizes reached the target to draw a curve.")
    critical = advice.curve.critical_batch_size
    note = f"Dots are trainings. The line is S(B) = S_min (1 + B_crit / B) with B_crit {critical}; the band is 90 %."
    figure = framed(objects, _HEIGHT)
    sizes = [p.batch_size for p in advice.predictions]
    _band(figure, sizes, [p.updates for p in advice.predictions], "fitted", objects)
    dots = [(run.batch_size, run.updates) for run in reached if run.updates is not None]
    figure.add_trace(_dots([b for b, _ in dots], [u for _, u in dots], "measured", ORANGE, objects))
    log_axis(figure, "x", "batch size (examples)", sizes)
    log_axis(figure, "y", "updates", [u for _, u in dots] + [p.updates.high for p in advice.predictions])
    return Chart(name="updates", title=title, note=note, figure=figure)


def _seconds_chart(advice: Advice, objects: Any) -> Chart:
    title = "Seconds to the target"
    if not advice.predictions:
        return Chart(name="seconds", title=title, note="There is no prediction.")
    figure = framed(objects, _HEIGHT)
    sizes = [p.batch_size for p in advice.predictions]
    _band(figure, sizes, [p.seconds for p in advice.predictions], "predicted", objects)
    if advice.chosen is not None:
        chosen = advice.chosen
        figure.add_trace(_dots([chosen.batch_size], [chosen.seconds.value], "advice", INK, objects, size=13))
    log_axis(figure, "x", "batch size (examples)", sizes)
    log_axis(figure, "y", "training time (s)", [p.seconds.value for p in advice.predictions])
    note = "Updates to the target times the measured time of an update."
    return Chart(name="seconds", title=title, note=note, figure=figure)


def _rates_chart(advice: Advice, objects: Any) -> Chart:
    """All rates that were tried, and how the best one goes over to other batch sizes."""
    title = "Learning rates"
    if not advice.runs:
        return Chart(name="rates", title=title, note="No training was made.")
    figure = framed(objects, _HEIGHT)
    for name, colour, held in (
        ("reached the target", BLUE, [run for run in advice.runs if run.updates is not None]),
        ("did not, or not as soon", GREY, [run for run in advice.runs if run.updates is None and not run.diverged]),
        ("diverged", RED, [run for run in advice.runs if run.diverged]),
    ):
        if held:
            x, y = [run.batch_size for run in held], [run.learning_rate for run in held]
            figure.add_trace(_dots(x, y, name, colour, objects))
    if advice.predictions:
        line = {"color": INK, "width": 2}
        x, y = [p.batch_size for p in advice.predictions], [p.learning_rate for p in advice.predictions]
        figure.add_trace(objects.Scatter(x=x, y=y, mode="lines", line=line, name="advice"))
    log_axis(figure, "x", "batch size (examples)", [run.batch_size for run in advice.runs])
    log_axis(figure, "y", "learning rate", [run.learning_rate for run in advice.runs])
    return Chart(name="rates", title=title, note="A dot is a training.", figure=figure)


def _throughput_chart(advice: Advice, objects: Any) -> Chart:
    title, found = "Throughput", advice.throughput
    if found is None:
        return Chart(name="throughput", title=title, note="It was not measured.")
    figure = framed(objects, _HEIGHT)
    line = {"color": BLUE, "width": 2}
    rates = list(found.examples_per_second)
    figure.add_trace(
        objects.Scatter(x=list(found.batch_sizes), y=rates, mode="lines+markers", line=line, name="examples/s")
    )
    log_axis(figure, "x", "batch size (examples)", found.batch_sizes)
    log_axis(figure, "y", "examples a second", rates)
    note = f"Measured here. From batch size {found.knee} on there is little left to gain."
    return Chart(name="throughput", title=title, note=note, figure=figure)


def _sentences(advice: Advice) -> list[str]:
    goal = "No target" if advice.target is None else f"Target: {advice.target}"
    chosen = " (chosen here)" if advice.target_is_ours else ""
    lines = [escaped(f"{goal}{chosen}; optimizer {advice.optimizer}.", 200)]
    if advice.batch_size is None:
        lines.append(f"<strong>{escaped(advice.reason, 400)}.</strong>")
    else:
        lines.append(f"<strong>{escaped(advice.answer, 300)}</strong>: {escaped(advice.reason, 300)}.")
    lines += [escaped(extra, 300) + "." for extra in advice.extras]
    cost = f"It took {duration(advice.cost_seconds)} and {advice.cost_examples:,} examples to find out."
    return [*lines, escaped(cost, 200)]


def _table(advice: Advice) -> str:
    if not advice.predictions:
        return ""
    rows = []
    for p in advice.predictions:
        cells = (p.batch_size, f"{p.learning_rate:.3g}", p.updates, p.seconds, f"{p.examples.value:,.0f}")
        best = ' class="best"' if p.batch_size == advice.batch_size else ""
        body = "".join(f'<td class="number">{escaped(str(cell))}</td>' for cell in cells)
        rows.append(f'<tr data-batch="{p.batch_size}"{best}>{body}</tr>')
    whole = table(_COLUMNS, rows, ' class="number"')
    return f"<h2>All batch sizes</h2>\n{whole}"


_COLUMNS = ("batch size", "learning rate", "updates", "seconds", "examples")


def _band(figure: Any, sizes: Sequence[int], intervals: Sequence[Any], name: str, objects: Any) -> None:
    """A line with its interval."""
    low, high = [i.low for i in intervals], [i.high for i in intervals]
    around = {"x": [*sizes, *reversed(sizes)], "y": [*low, *reversed(high)], "mode": "lines", "fill": "toself"}
    look = {"fillcolor": _BAND, "line": {"width": 0}, "hoverinfo": "skip"}
    figure.add_trace(objects.Scatter(**around, **look, name="90 %"))
    line = {"color": BLUE, "width": 2.5}
    figure.add_trace(objects.Scatter(x=list(sizes), y=[i.value for i in intervals], mode="lines", line=line, name=name))


def _dots(x: Sequence[Any], y: Sequence[Any], name: str, colour: str, objects: Any, size: int = 9) -> Any:
    marker = {"color": colour, "size": size}
    return objects.Scatter(x=list(x), y=list(y), mode="markers", marker=marker, name=name)


def _drawable(value: float) -> bool:
    return math.isfinite(value) and abs(value) < 1e150
