"""`tfmb train --recipe`: options that others on the command line change."""

import json
from pathlib import Path
from typing import Any

import pytest

from tfmb.cli import main
from tfmb.environment import processor
from tfmb.jobs.config import TrainConfig
from tfmb.jobs.presets import RECIPE_NAMES, options_of_recipe

pytestmark = pytest.mark.usefixtures("fresh_keras")


@pytest.mark.parametrize("recipe", RECIPE_NAMES)
def test_options_make_sense(recipe: str) -> None:
    TrainConfig(**options_of_recipe(recipe))


def test_reference_is_the_defaults() -> None:
    assert options_of_recipe("reference") == {}


@pytest.mark.parametrize(("flags", "precision"), [("sse avx512_bf16", "mixed_bfloat16"), ("sse avx2", "float32")])
def test_bfloat16_needs_the_instructions(flags: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.Path, "read_text", lambda self, **_: f"flags : {flags}\n")
    assert options_of_recipe("fast")["precision"] == precision


def test_options_given_change_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["train", "--recipe", "fast", "--dataset", "digits", "--model", "mlp", "--batch-size", "512"])
    config = json.loads(next(tmp_path.glob("runs/*/run.json")).read_text())["config"]
    assert (config["dataset"], config["model"], config["batch_size"]) == ("digits", "mlp", 512)
    assert (config["epochs"], config["schedule"], config["learning_rate"]) == (1, "one-cycle", 0.007)


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ({"dataset": "mine:load"}, {"dataset"}),
        ({"model": "mine:build"}, {"model"}),
        ({"optimizer": "sgd"}, {"optimizer"}),
        ({"optimizer": "sgd", "dataset": "mine:load"}, {"optimizer", "dataset"}),
    ],
)
def test_what_an_option_takes_the_place_of_is_left_out(given: dict[str, Any], left_out: set[str]) -> None:
    """It was refused as if it stood on the command line."""
    options = options_of_recipe("fast", given)
    assert set(options_of_recipe("fast")) - set(options) == left_out
    TrainConfig(**{**options, **given})


def test_a_bad_option_beside_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for given, words in (
        (["--optimizer", "nonsense"], "unknown --optimizer 'nonsense'"),
        (["--dataset", "a:b", "--mirror", "x"], "a:b needs none"),
        (["--model", "a:b,dropout=0.5"], "dropout is no argument of it"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["train", "--recipe", "fast", *given])
        assert caught.value.code == 2
        assert words in capsys.readouterr().err


def test_unknown_recipe_and_one_for_a_run_that_goes_on_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--recipe", "slow"], "unknown --recipe 'slow': give reference or fast"),
        (["--recipe", "fast", "--resume", "runs/a"], "--recipe fast and --resume cannot both be given"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["train", *arguments])
        assert caught.value.code == 2
        assert words in capsys.readouterr().err
