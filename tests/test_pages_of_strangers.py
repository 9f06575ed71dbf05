"""Names that would run as a program in a page, or steer a terminal, are shown as the text that they are."""

import dataclasses
from pathlib import Path

import pytest
from made_up_pages import advice, comparison, curve, opened
from searches import search, trial

from tfmb.advice.compare_page import write_comparison
from tfmb.advice.pages import write_advice, write_rate_curve
from tfmb.environment.console import say, tell
from tfmb.tuning.report.page import write_report

MARK = "document.documentElement.dataset.ran=1"
NAMES = {
    "script": f"<script>{MARK}</script>",
    "end of a script": f"</script><script>{MARK}</script>",
    "image": f'"><img src=x onerror="{MARK}">',
    "link": f"<a href='javascript:{MARK}'>x</a><svg onload={MARK}>",
    "template": "${name} %s {0} \\u003cscript\\u003e \x1b[2J",
}


def write(kind: str, path: Path, name: str) -> None:
    if kind == "advice":
        found = dataclasses.replace(advice(), name=name, optimizer=name, reason=name, extras=(name,))
        write_advice(found, path)
    elif kind == "range":
        write_rate_curve(curve(), path, name)
    elif kind == "comparison":
        write_comparison(dataclasses.replace(comparison(), name=name), path)
    else:
        trials = [
            trial(number, values={"batch_size": 8 * number + 8, "learning_rate": 0.1 / (number + 1), name: name})
            for number in range(4)
        ]
        write_report(search(*trials, name=name, oracle="random", seconds=1.0), path)


@pytest.mark.process
@pytest.mark.parametrize("kind", ["advice", "range", "comparison", "search"])
def test_a_page_does_not_run_names(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    write(kind, path, " ".join(NAMES.values()))
    document, said = opened(path)
    assert "data-ran" not in document
    assert not [line for line in said if "SyntaxError" in line or "Uncaught" in line], said
    assert "plotly" in document


@pytest.mark.process
def test_a_browser_would_have_run_them(tmp_path: Path) -> None:
    for name in ("script", "image"):
        (tmp_path / "a.html").write_text(f'<!doctype html><p title="{NAMES[name]}">{NAMES[name]}</p>')
        assert "data-ran" in opened(tmp_path / "a.html")[0]


def test_names_do_not_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2J\x07\u202eb\x9b1mc\r\nd")
    shown = capsys.readouterr().err
    assert shown.rstrip("\n").isprintable()
    assert shown.startswith("tfmb: a\\x1b[2J\\x07\\u202eb\\x9b1mc")


@pytest.mark.parametrize(
    ("on_terminal", "shown"),
    [(True, "a\\x1b[2J\\udcfb\n"), (False, "a\x1b[2J\\udcfb\n")],
    ids=["terminal", "pipe"],
)
def test_results_on_a_terminal_and_in_a_pipe(
    on_terminal: bool, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that reads a path gets it as it is, but for what no text can hold."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: on_terminal, raising=False)
    tell("a\x1b[2J\udcfb")
    assert capsys.readouterr().out == shown
