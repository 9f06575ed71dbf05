"""All four pages with made-up numbers, as large and long as they come; and what a browser measures of them."""

import html
import json
import math
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from searches import search, trial

from tfmb.advice.batch_curve import Interval, fit_curve
from tfmb.advice.compare import Comparison, Method
from tfmb.advice.compare_page import write_comparison
from tfmb.advice.pages import write_advice, write_rate_curve
from tfmb.advice.rate_curve import RateCurve, read_curve
from tfmb.advice.records import Advice, SizePrediction
from tfmb.advice.short_runs import ShortRun
from tfmb.advice.target import Look, Target
from tfmb.advice.throughput import Throughput
from tfmb.tuning.records import SearchRecord
from tfmb.tuning.report.page import write_report

PAGES = ("advice", "range", "comparison", "search")
SIZES = tuple(2**power for power in range(3, 12))


def write_all(folder: Path) -> None:
    """Writes `NAME.html` for each of `PAGES`."""
    write_advice(advice(), folder / "advice.html")
    write_rate_curve(curve(), folder / "range.html", "cnn on a_module_of_mine.with_a_long_name:load")
    write_comparison(comparison(), folder / "comparison.html")
    write_report(wide_search(40), folder / "search.html")


def curve() -> RateCurve:
    """A range test that falls, and diverges in the end."""
    rates = [10 ** (-6 + 7 * update / 149) for update in range(150)]
    losses = [2.3 - 2 / (1 + (0.003 / rate) ** 1.5) + 0.05 * math.sin(7 * n) for n, rate in enumerate(rates)]
    return read_curve(
        rates, [loss if rate < 0.5 else loss + 9 * (rate - 0.5) for loss, rate in zip(losses, rates, strict=True)]
    )


def advice() -> Advice:
    """One with all charts and sentences."""
    fitted = fit_curve([16, 128, 1024], [[900.0, 1000.0], [180.0, 200.0], [90.0, 100.0]])
    found, seconds = [], [0.001 * (1 + size / 64) for size in SIZES]
    for size, step in zip(SIZES, seconds, strict=True):
        updates = fitted.updates(size)
        found.append(
            SizePrediction(
                batch_size=size,
                learning_rate=0.0005 * math.sqrt(size),
                updates=updates,
                step_seconds=step,
                seconds=_times(updates, step),
                examples=_times(updates, size),
            )
        )
    runs = [
        ShortRun(
            batch_size=size,
            learning_rate=0.0005 * math.sqrt(size) * factor,
            updates=1000.0 if factor == 1 else None,
            diverged=factor == 8,
            looks=(),
            step_seconds=0.001,
            spent_seconds=1.0,
        )
        for size in (16, 128, 1024)
        for factor in (0.5, 1, 2, 8)
    ]
    return Advice(
        name="mlp on digits", optimizer="Adam", target=Target.parse("val_accuracy>=0.97"), target_is_ours=True,
        batch_size=128, learning_rate=0.00566, least_compute=(8, 0.0014), curve=fitted, transfer=None, sweep=curve(),
        as_good=(64, 128, 256),
        reason="0.07 s to loss<=0.03; batch size 512, with the highest throughput, takes 1.5 times as long",
        predictions=tuple(found), throughput=Throughput(batch_sizes=SIZES, step_seconds=tuple(seconds)),
        runs=tuple(runs), confirmed=None, extras=("A second device would take 0.7 times as long",),
        cost_seconds=7.0, cost_examples=123_456,
    )  # fmt: skip


def _times(interval: Interval, factor: float) -> Interval:
    return Interval(value=factor * interval.value, low=factor * interval.low, high=factor * interval.high)


def comparison() -> Comparison:
    """Three ways down, over three decades of time."""
    methods = []
    for name, size in (("batch", 60_000), ("mini-batch", 64), ("stochastic", 1)):
        looks = tuple(
            Look(updates=n, examples=n * size, seconds=0.01 * n**1.5, value=1 - 0.9 / n**0.5) for n in range(1, 30)
        )
        run = ShortRun(
            batch_size=size, learning_rate=0.1, updates=12.0 if size > 1 else None, diverged=False, looks=looks,
            step_seconds=0.01, spent_seconds=30.0,
        )  # fmt: skip
        methods.append(
            Method(
                name=name,
                batch_size=size,
                learning_rate=0.123,
                noise=60_000 / size - 1,
                updates_an_epoch=60_000 // size,
                epoch_seconds=600 / size,
                run=run,
                values={"val_accuracy": looks[-1].value},
                cores=1.7,
                peak_bytes=2**30 if size < 60_000 else None,
                memory_note="does not fit" if size == 60_000 else "",
            )
        )
    target = Target.parse("val_accuracy>=0.95")
    return Comparison(
        name="mlp on mnist", target=target, seconds=30.0, examples=60_000, methods=tuple(methods), cost_seconds=95.0
    )


def wide_search(count: int) -> SearchRecord:
    """A search of six hyper-parameters, whose losses span two decades, with every fate."""
    trials = []
    for number in range(count):
        values = {
            "batch_size": 2 ** (4 + number % 7),
            "learning_rate": 10.0 ** -(1 + number * 5 % 13 / 4),
            "optimizer": ("adam", "momentum", "rmsprop")[number % 3],
            "schedule": ("constant", "one-cycle")[number % 2],
            "weight_decay": 10.0 ** -(2 + number % 4),
            "augment": "shift=2,rotate=10" if number % 2 else "",
        }
        fate = ("completed", "completed", "pruned", "completed", "diverged")[number % 5]
        score = None if fate == "diverged" else 0.02 * 10 ** (2 * (number * 7 % count) / count)
        cause = "the loss is not finite at update 12" if score is None else None
        trials.append(trial(number, values=values, fate=fate, score=score, cause=cause, worker=f"worker-{number % 2}"))
    trials.append(trial(count, fate="running", score=None, history=()))
    return search(*trials, name="mnist cnn", oracle="bayesian", seconds=81.0)


class Dom(HTMLParser):
    """The text of the element that a probe left its findings in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found = ""
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = dict(attrs).get("id") == "findings"

    def handle_data(self, data: str) -> None:
        self.found += data if self._inside else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


def browser() -> str:
    """Chromium; without one the test is skipped, by name."""
    names = (os.environ.get("TFMB_BROWSER"), "chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no browser: install chromium")
    return found


def opened(path: Path, *options: str) -> tuple[str, list[str]]:
    """A page's DOM after a browser ran it, and what it wrote to its console."""
    kept = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    kept += ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    kept += ["--disable-sync", "--enable-unsafe-swiftshader", "--enable-logging=stderr", "--v=0"]
    kept += [f"--user-data-dir={path.parent / 'user'}", *options]
    done = subprocess.run([browser(), *kept, path.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "GL Driver Message" not in line]
    return done.stdout, said


def measured(page: Path, width: int, script: str) -> Any:
    """What an expression of JavaScript is in a page that is so many pixels wide, after its charts were drawn.

    A frame has the width that it is given, which a window has not; a page in a frame tells the one around it.
    """
    probe = (
        f"<script>addEventListener('load', () => setTimeout(() => parent.postMessage(({script}), '*'), 2000))</script>"
    )
    inner = page.with_name(f"{page.stem}-probed.html")
    inner.write_text(page.read_text("utf-8").replace("</body>", f"{probe}</body>"), "utf-8")
    outer = page.with_name(f"{page.stem}-framed.html")
    outer.write_text(
        f'<!doctype html><p id="findings"></p><iframe src="{html.escape(inner.name)}" width="{width}" height="800" '
        'style="border: 0"></iframe><script>addEventListener("message", event => '
        'document.getElementById("findings").textContent = JSON.stringify(event.data))</script>'
    )
    return json.loads(Dom(opened(outer)[0]).found)
