"""`tfmb advise`, with `--compare` too, and `tfmb lr-range`."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tfmb.cli import main

OWN = ["--model", "problems:build", "--dataset", "problems:load"]


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    found = capsys.readouterr()
    assert found.out.count("\n") == 1
    return json.loads(found.out)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1] / "helpers")  # where a user's own module lies


def test_advise(capsys: pytest.CaptureFixture[str], tmp_path: Path, busy_or_not: None) -> None:
    page = tmp_path / "a.html"
    found = answer(
        capsys, "advise", *OWN, "--target", "val_accuracy>=0.8", "--batch-sizes", "16,64", "--html", str(page)
    )
    assert found["batch_size"] in (16, 64)
    needed = {"batch_size", "learning_rate", "critical_batch_size", "cost_seconds"}
    assert needed | {f"{name}_interval" for name in needed - {"cost_seconds"}} <= set(found)
    assert page.exists()
    assert main(["advise", *OWN, "--target", "val_accuracy>=0.8", "--batch-sizes", "16,64"]) == 0
    assert "it took" in capsys.readouterr().out


@pytest.mark.compile
def test_lr_range(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    found = answer(
        capsys, "lr-range", *OWN, "--batch-size", "16", "--learning-rates", "1e-6:10,updates=60", "--html", str(page)
    )
    assert 1e-6 < found["learning_rate"] < 10
    assert page.exists()
    assert main(["lr-range", *OWN, "--learning-rates", "1e-6:10,updates=60"]) == 0
    assert "edge of divergence" in capsys.readouterr().out


@pytest.mark.slow
def test_compare(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "advise", "--compare", *OWN, "--budget", "0.9s", "--batch-sizes", "32")
    assert [method["name"] for method in found["methods"]] == ["batch", "mini-batch", "stochastic"]
    assert (found["seconds"], found["methods"][1]["batch_size"]) == (pytest.approx(0.3), 32)
    assert main(["advise", "--compare", *OWN, "--budget", "0.6s"]) == 0
    assert "gradient noise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["advise", "--budget", "soon"], "--budget 'soon': give seconds"),
        (["advise", "--batch-sizes", "a"], "--batch-sizes 'a': give integers"),
        (["advise", *OWN, "--target", "accuracy"], "give METRIC>=VALUE"),
        (["advise", "--model", "vgg"], "unknown --model 'vgg'"),
        (["lr-range", "--batch-size", "0"], "--batch-size 0 must be at least 1"),
        (["lr-range", "--learning-rates", "2:1"], "0 < LOW < HIGH"),
        (
            ["lr-range", "--learning-rates", "1:2,updates=5"],
            "--learning-rates updates='5' must be an integer at least 10",
        ),
        (["advise", "--compare", "--batch-sizes", "1"], "--compare takes one size of a mini-batch, at least 2"),
        (["advise", "--compare", "--batch-sizes", "8,16"], "--compare takes one size of a mini-batch"),
        (["advise", "--compare", "--budget", "0"], "--budget '0' must be more than 0"),
        (["advise", "--compare", *OWN, "--target", "x"], "give METRIC>=VALUE"),
        (["compare", *OWN], "`tfmb compare` is called `tfmb advise --compare` now"),
    ],
)
def test_words_that_make_no_sense(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "mend"),
    [
        ("advise", "smaller --batch-sizes, or --memory, which finds the largest that fits, or a smaller --model"),
        ("lr-range", "a smaller --batch-size, or a smaller --model"),
        ("train", "a smaller --batch-size, or --micro-batch-size, or a smaller --model"),
    ],
)
def test_out_of_memory_names_options_that_the_command_has(
    command: str, mend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    for name in ("advise", "train"):  # the package has functions of these names
        monkeypatch.setattr(sys.modules[f"tfmb.cli.{name}"], "start_tensorflow", full)
    with pytest.raises(SystemExit, match="4"):
        main([command])
    assert capsys.readouterr().err == f"tfmb: error[4]: out of memory: give {mend}\n"


def test_memory_comes_first_and_advice_chooses_among_what_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[int]] = []
    given = SimpleNamespace(
        batch_size=None, reason="undetermined: because", predictions=(), extras=(), record=dict, cost_seconds=0.0
    )

    def advise_on(problem: object, target: object, limit: object, sizes: list[int], **_: object) -> SimpleNamespace:
        asked.append(sizes)
        return given

    monkeypatch.setattr("tfmb.advice.advise.advise_on", advise_on)
    monkeypatch.setattr("tfmb.advice.jobs.largest_batch_of", lambda *_: 40)
    assert main(["advise", *OWN, "--memory"]) == 0
    assert main(["advise", *OWN, "--memory", "--batch-sizes", "64,128"]) == 0
    assert asked == [[8, 16, 32], [40]]
    assert "largest batch that fits: 40" in capsys.readouterr().out
