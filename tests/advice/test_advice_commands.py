"""`tfmb advise`, `tfmb lr-range` and `tfmb compare`."""

import json
from pathlib import Path
from typing import Any

import pytest

from tfmb.cli import main

OWN = ["--model", "problems:build", "--data", "problems:load"]


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    found = capsys.readouterr()
    assert found.out.count("\n") == 1
    return json.loads(found.out)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)  # where a user's own module lies


def test_advise(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
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


def test_lr_range(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    found = answer(capsys, "lr-range", *OWN, "--batch-size", "16", "--updates", "60", "--html", str(page))
    assert 1e-6 < found["learning_rate"] < 10
    assert page.exists()
    assert main(["lr-range", *OWN, "--updates", "60"]) == 0
    assert "edge of divergence" in capsys.readouterr().out


def test_compare(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "compare", *OWN, "--seconds", "0.3s", "--batch-size", "32", "--no-memory")
    assert [method["name"] for method in found["methods"]] == ["batch", "mini-batch", "stochastic"]
    assert main(["compare", *OWN, "--seconds", "0.2s", "--no-memory"]) == 0
    assert "gradient noise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["advise", "--budget", "soon"], "--budget 'soon': give seconds"),
        (["advise", "--batch-sizes", "a"], "--batch-sizes 'a': give integers"),
        (["advise", *OWN, "--target", "accuracy"], "give METRIC>=VALUE"),
        (["advise", "--model", "vgg"], "unknown --model 'vgg'"),
        (["lr-range", "--batch-size", "0"], "--batch-size 0 must be at least 1"),
        (["lr-range", "--low", "2", "--high", "1"], "0 < low < high"),
        (["lr-range", "--updates", "5"], "--updates 5 must be at least 10"),
        (["compare", "--batch-size", "1"], "--batch-size 1 must be at least 2"),
        (["compare", "--seconds", "0"], "--seconds '0' must be more than 0"),
        (["compare", *OWN, "--target", "x"], "give METRIC>=VALUE"),
    ],
)
def test_words_that_make_no_sense(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert said in capsys.readouterr().err
