"""The page of a search: all trials, escaped text, no network, whole or not at all, and what a browser makes of it."""

import html
import json
import math
import os
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_pages import opened
from searches import NASTY, mixed, search, trial

from tfmb.errors import ConfigError, StorageError
from tfmb.tuning.records import Evaluation, SearchRecord
from tfmb.tuning.report.figures import charts
from tfmb.tuning.report.page import write_report

BOTH = ("batch_size", "learning_rate")


class Page(HTMLParser):
    """What a browser would make of a page's text, without running it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[str | None] = []
        self.cells: list[str] = []
        self.drawn: dict[str, int] = {}
        self.classes: set[str] = set()
        self._chart = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if "data-trial" in given:
            self.rows.append(given["data-trial"])
        if tag == "td":
            self.cells.append("")
        classes = (given.get("class") or "").split()
        self.classes |= set(classes)
        if "plotly-graph-div" in classes:
            self._chart = given.get("id") or ""
        elif "main-svg" in classes:
            self.drawn[self._chart] = self.drawn.get(self._chart, 0) + 1

    def handle_data(self, data: str) -> None:
        if self.lasttag == "td":
            self.cells[-1] += data.rstrip("\n")


def page_of(record: SearchRecord, folder: Path) -> Page:
    write_report(record, folder / "report.html")
    return Page((folder / "report.html").read_text("utf-8"))


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_every_trial_is_in_the_table_once(count: int, tmp_path: Path) -> None:
    record = mixed(count)
    page = page_of(record, tmp_path)
    assert sorted(map(str, page.rows)) == [found.trial for found in record.trials]
    scores = [found.score for found in record.ranked() if found.score is not None]
    assert scores == sorted(scores)
    assert page.rows[: len(scores)] == [found.trial for found in record.ranked()]
    assert sum("plotly-graph-div" in (given.get("class") or "") for _, given in page.tags) == (4 if count else 0)
    assert (tmp_path / "report.html").read_text("utf-8").count("plotly.js v") == (1 if count else 0)


def test_the_heading_says_what_was_found(tmp_path: Path) -> None:
    page_of(mixed(20), tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<title>Search of digits: val_loss</title>" in text
    assert '<html lang="en">' in text
    assert '<meta charset="utf-8">' in text
    assert "20 trials (14 completed, 2 pruned, 3 diverged, 1 running) in 1 min 1 s." in text
    best = mixed(20).best
    assert best is not None
    assert f"Best: trial {best.trial}, val_loss {best.score:g}, with batch_size {best.values['batch_size']}, " in text


def test_text_of_users_stays_text(tmp_path: Path) -> None:
    def record(text: str) -> SearchRecord:
        looks = (Evaluation(slice=1, updates=1, examples=1, seconds=1.0, metrics={text: 1.0}),)
        values = {text: text, "batch_size": 8, "learning_rate": 0.1}
        one = trial(0, trial=text, values=values, fate="pruned", cause=text, worker=text, history=looks)
        names = {"objective": text, "oracle": text, "name": text, "direction": text}
        return search(one, trial(1, values=values, fate=text, score=None), **names)

    page, plain = page_of(record(NASTY), tmp_path), page_of(record("plain"), tmp_path)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert "t001" in page.rows
    assert NASTY in page.rows
    assert page.cells.count(NASTY) == plain.cells.count("plain") == 6
    for chart in charts(record(NASTY)):
        shown = json.loads(chart.figure.to_json())
        assert "<img" not in json.dumps([shown["layout"], [{**d, "dimensions": None} for d in shown["data"]]])


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = page_of(mixed(40), tmp_path)
    for tag, attributes in page.tags:
        assert not {"src", "href", "srcset", "data", "action"} & set(attributes), tag
    assert "link" not in [tag for tag, _ in page.tags]
    assert any("default-src 'none'" in (given.get("content") or "") for _, given in page.tags)
    style = (tmp_path / "report.html").read_text("utf-8").split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize(
    "odd",
    [
        search(*(trial(number, fate="diverged", score=None) for number in range(12))),
        search(*(trial(number, score=0.5) for number in range(40))),
        search(*(trial(number, score=score) for number, score in enumerate([math.nan, math.inf, 1e308, -1e308, 1.0]))),
        search(
            *(
                trial(number, values=dict.fromkeys(BOTH, rate))
                for number, rate in enumerate([math.inf, 1e308, 1e-320, 1])
            )
        ),
        search(
            *(trial(number, values=dict.fromkeys(BOTH, text)) for number, text in enumerate(["full", True, None, -1]))
        ),
        search(trial(0, values={})),
        search(trial(0, values={f"h{number}": number for number in range(90)})),
        search(trial(0, cause="y" * 100_000, values={"x" * 1000: "z" * 100_000, "s": "\ud800"})),
    ],
)
def test_odd_searches_have_a_page(odd: SearchRecord, tmp_path: Path) -> None:
    assert len(page_of(odd, tmp_path).rows) == len(odd.trials)


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(StorageError, match=r"report\.html cannot be written \(No space left on device\)"):
            write_report(mixed(3), path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_report(mixed(3), path)
    assert [found.name for found in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"
    write_report(mixed(3), path)
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_plotly_is_named_with_its_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ConfigError, match="pip install plotly") as caught:
        write_report(mixed(3), tmp_path / "report.html")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_a_browser_shows_every_trial_and_chart(tmp_path: Path) -> None:
    record = mixed(40)
    bad = trial(40, trial=NASTY, values={"batch_size": 64, "learning_rate": 0.1, NASTY: NASTY}, cause=NASTY)
    record = search(*record.trials, bad, name=NASTY)
    write_report(record, tmp_path / "report.html")
    text, said = opened(tmp_path / "report.html")
    page = Page(text)
    assert said == []
    assert sorted(map(str, page.rows)) == sorted(found.trial for found in record.trials)
    assert set(page.drawn) == {"map", "curves", "best-so-far", "parallel"}
    assert "gl-canvas" in page.classes  # parallel coordinates are drawn by WebGL, which a strict page can forbid
    assert "no-webgl" not in page.classes
    assert "img" not in [tag for tag, _ in page.tags]


@pytest.mark.process
@pytest.mark.parametrize("fault", ["console.error('fault')", "throw new Error('fault')", "fault("])
def test_the_browser_says_what_went_wrong(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "faulty.html"
    path.write_text(f"<!doctype html><title>{html.escape(fault)}</title><script>{fault}</script>")
    assert len(opened(path)[1]) == 1
