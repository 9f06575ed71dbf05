"""A comparison as one HTML page: the three ways down, against time and against examples."""

import math
from pathlib import Path
from typing import Any

from tfmb.advice.compare import Comparison, seconds_to_target
from tfmb.advice.pages import BLUE, ORANGE, RED, draw_with
from tfmb.report.appearance import Chart, duration, escaped, framed, table, title_value_axis
from tfmb.report.page import write_page

__all__ = ["rows_of", "table_of", "write_comparison"]

_COLOURS = {"batch": RED, "mini-batch": BLUE, "stochastic": ORANGE}
HEAD = (
    "method", "batch size", "learning rate", "gradient noise", "updates an epoch", "time an epoch", "time to target",
    "final", "memory", "busy cores",
)  # fmt: skip


def write_comparison(found: Comparison, path: Path) -> None:
    """Writes a page that needs no network.

    Raises:
        ConfigError: Plotly is not installed.
        StorageError: the page cannot be written; an old one stays.
    """
    objects = draw_with()
    charts = [_curves(found, objects, "seconds", "training time (s)"), _curves(found, objects, "examples", "examples")]
    about = f"Each trained for {duration(found.seconds)} on {found.examples:,} examples. Target: {found.target}."
    notes = (
        "Gradient noise: the mean squared distance of a batch's gradient from that of all examples, at the start, as "
    )
    notes += "a share of the latter's square. It falls with the batch size; what an update costs rises with it."
    body = [
        f'<tr data-method="{escaped(row[0])}">' + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>"
        for row in rows_of(found)
    ]
    title = f"Three ways down: {found.name}"
    sections = [f"<p>{escaped(about, 300)}</p>", f"<p>{escaped(notes, 400)}</p>", table(HEAD, body)]
    write_page(path, title, title, sections, charts)


def table_of(found: Comparison) -> list[list[str]]:
    """Returns the table's head and rows, as text."""
    return [list(HEAD), *rows_of(found)]


def rows_of(found: Comparison) -> list[list[str]]:
    """Returns the table's rows, as text."""
    rows = []
    for method in found.methods:
        soon = seconds_to_target(method.run)
        memory = method.memory_note if method.peak_bytes is None else f"{method.peak_bytes / 2**20:,.0f} MiB"
        key = found.target.metric
        last = method.values.get(key, method.run.looks[-1].value if method.run.looks else math.nan)
        rows.append(
            [
                method.name,
                f"{method.batch_size:,}",
                f"{method.learning_rate:.3g}",
                "-" if method.noise is None else f"{method.noise:.3g}",
                f"{method.updates_an_epoch:,}",
                duration(method.epoch_seconds),
                "not reached" if soon is None else duration(soon),
                f"{key} {last:.4f}",
                memory or "-",
                f"{method.cores:.1f}",
            ]
        )
    return rows


def _curves(found: Comparison, objects: Any, axis: str, label: str) -> Chart:
    title = f"{found.target.metric} against {axis}"
    figure, heights = framed(objects, 420), []
    for method in found.methods:
        looks = [look for look in method.run.looks if math.isfinite(look.value) and getattr(look, axis) > 0]
        heights += [look.value for look in looks]
        line = {"color": _COLOURS[method.name], "width": 2.5}
        x, y = [getattr(look, axis) for look in looks], [look.value for look in looks]
        name = f"{method.name} ({method.batch_size:,})"
        figure.add_trace(objects.Scatter(x=x, y=y, mode="lines+markers", marker={"size": 4}, line=line, name=name))
    if not heights:
        return Chart(name=axis, title=title, note="No training had a finite value.")
    figure.update_xaxes(title_text=label, type="log")
    title_value_axis(figure, found.target.metric, heights)
    return Chart(name=axis, title=title, note="A dot is a look at the training.", figure=figure)
