"""A search as one HTML page that opens anywhere: charts that can be hovered and zoomed, and a table of every trial."""

import html
from pathlib import Path
from string import Template
from typing import Any

from tfmb.report.appearance import duration, escaped, number, scrolling
from tfmb.report.page import write_page

from ..records import SearchRecord, TrialRecord
from .appearance import fates_in_words, names_of_values
from .figures import charts

__all__ = ["write_report"]

_MOST_CELL, _MOST_LISTED = 200, 20
_TABLE = Template("""<h2>All trials</h2>
<p class="note">The best score first, then those without one, in the order they began.</p>
$table""")


def write_report(record: SearchRecord, path: Path) -> None:
    """Writes a search as one HTML page that needs no network.

    Args:
        record: the search.
        path: the page; one that is there already is replaced when the new one is whole.

    Raises:
        ConfigError: Plotly is not installed.
        StorageError: the page cannot be written; the old one stays.
    """
    write_page(
        path,
        title=f"Search of {record.name}: {record.objective}",
        heading=f"Search of {record.name}",
        sections=[f"<p>{sentence}</p>" for sentence in _summary(record)],
        charts=charts(record),
        end=_TABLE.substitute(table=scrolling(_table(record))),
    )


def _summary(record: SearchRecord) -> list[str]:
    """What was searched, what it took and what it found: escaped sentences."""
    goal = {"min": "lowest", "max": "highest"}.get(record.direction, record.direction)
    names = _listed([escaped(name) for name in names_of_values(record)]) or "nothing yet"
    searched = f"Objective: the {escaped(goal)} {escaped(record.objective)}. Searched: {names}. "
    searched += f"Oracle: {escaped(record.oracle)}{', asynchronous' if record.asynchronous else ''}."
    fates = f" ({escaped(fates_in_words(record))})" if record.trials else ""
    count = f"{len(record.trials)} trial{'' if len(record.trials) == 1 else 's'}"
    spent = f"{count}{fates} in {duration(record.seconds)}."
    best = record.best
    if best is None:
        return [searched, spent, "No trial has a score, so there is no best one."]
    values = _listed([f"{escaped(name)} {escaped(value)}" for name, value in best.values.items()])
    found = f"Best: trial {escaped(best.trial)}, {escaped(record.objective)} {escaped(best.score)}"
    found += f", with {values}" if values else ""
    if best.history:
        found += f", after {best.history[-1].updates:,} updates"
    if best.fate != "completed":
        found += f". It is {escaped(best.fate)}: no trial spent its whole budget and has a score"
    return [searched, spent, f"<strong>{found}.</strong>"]


def _listed(words: list[str]) -> str:
    more = [f"and {len(words) - _MOST_LISTED} more"] if len(words) > _MOST_LISTED else []
    return ", ".join(words[:_MOST_LISTED] + more)


def _table(record: SearchRecord) -> str:
    """Every trial, the best score first; a row has its id in `data-trial`."""
    ranked, best = record.ranked(), record.best
    places = {id(trial) for trial in ranked}
    trials = ranked + [trial for trial in record.trials if id(trial) not in places]
    columns: dict[tuple[str, str], list[Any]] = {
        ("", "trial"): [trial.trial for trial in trials],
        ("", "fate"): [trial.fate for trial in trials],
        ("", record.objective): [trial.score for trial in trials],
        # A hyper-parameter may bear the name of another column.
        **{("value", name): [trial.values.get(name) for trial in trials] for name in names_of_values(record)},
        ("", "epochs"): [trial.history[-1].epochs if trial.history else None for trial in trials],
        ("", "updates"): [trial.history[-1].updates if trial.history else None for trial in trials],
        ("", "seconds"): [round(number(trial.seconds) or 0.0, 1) for trial in trials],
        ("", "worker"): [trial.worker for trial in trials],
        ("", "cause"): [trial.cause for trial in trials],
    }
    for optional in (("", "worker"), ("", "cause")):
        if all(cell is None for cell in columns[optional]):
            del columns[optional]
    # Numbers stand to the right.
    kinds = [_kind(cells) for cells in columns.values()]
    head = "".join(f'<th scope="col"{kind}>{escaped(n)}</th>' for kind, (_, n) in zip(kinds, columns, strict=True))
    rows = [_row_opening(trial, trial is best) for trial in trials]
    for kind, cells in zip(kinds, columns.values(), strict=True):
        rows = [f"{row}<td{kind}>{_cell(cell)}</td>" for row, cell in zip(rows, cells, strict=True)]
    body = "".join(f"{row}</tr>\n" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _kind(cells: list[Any]) -> str:
    given = [cell for cell in cells if cell is not None]
    numeric = given and all(isinstance(cell, float) or number(cell) is not None for cell in given)
    return ' class="number"' if numeric else ""


def _row_opening(trial: TrialRecord, best: bool) -> str:
    kind = ' class="best"' if best else ""
    return f'<tr data-trial="{html.escape(trial.trial)}"{kind}>'


def _cell(cell: Any) -> str:
    return "" if cell is None else escaped(cell, _MOST_CELL)
