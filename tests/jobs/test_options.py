"""Options are declared once: the check of a value and the option of a command come from the field."""

import dataclasses
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from tfmb.cli.options import takes
from tfmb.errors import ConfigError
from tfmb.jobs.config import ProblemConfig, TrainConfig
from tfmb.jobs.options import check_options, flag, option, options_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """Options of every kind."""

    rows: int = option(3, "Rows.", "Kinds", least=1)
    size: int | Literal["full"] = option(8, "Size.", "Kinds", least=1, words=("full",))
    rate: float | None = option(None, "Rate.", "Kinds")
    word: str = option("a", "Word.", "Kinds", names=("a", "b"))
    lights: bool = option(True, "Lights.", "Kinds")
    fast_lane: bool = option(False, "Fast.", "Kinds")
    hidden: int = 5

    def __post_init__(self) -> None:
        check_options(self)


def test_the_fields_are_the_options() -> None:
    found = options_of(Made)
    assert list(found) == ["rows", "size", "rate", "word", "lights", "fast_lane"]
    assert [about.kind for about in found.values()] == [int, int, float, str, bool, bool]
    assert [about.optional for about in found.values()] == [False, False, True, False, False, False]
    assert flag("fast_lane") == "--fast-lane"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rows": 0}, "--rows 0 must be an integer of at least 1"),
        ({"rows": None}, "--rows None must be an integer of at least 1"),
        ({"size": "half"}, "--size 'half' must be an integer of at least 1 or 'full'"),
        ({"rate": -1.0}, "--rate -1.0 must be a number at least 0"),
        ({"word": "c"}, "unknown --word 'c': give a, b"),
        ({"word": 1}, "--word 1 must be text"),
        ({"fast_lane": 1}, "--fast-lane 1 must be true or false"),
    ],
)
def test_a_value_is_checked_by_its_declaration(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Made(**given)
    assert str(caught.value) == words


def run(words: list[str], **chosen: Any) -> dict[str, Any]:
    """What a command gets of a command line."""
    app = typer.Typer()
    got: dict[str, Any] = {}

    @app.command()
    @takes(Made, *chosen.pop("names", ()), **chosen)
    def command(options: dict[str, Any], own: Annotated[int, typer.Option()] = 0) -> None:
        got.update(options, own=own)

    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return {**got, "shown": result.output}


def test_a_command_gets_them() -> None:
    words = ["--size", "full", "--rate", "0.5", "--no-lights", "--fast-lane", "--own", "2", "--word", "b"]
    expected = {"rows": 3, "size": "full", "rate": 0.5, "word": "b", "lights": False, "fast_lane": True, "own": 2}
    assert run(words) == {**expected, "shown": ""}
    assert run(["--size", "16"])["size"] == 16
    assert run(["--size", "x"])["size"] == "x"  # which the dataclass refuses
    assert run([])["size"] == 8


def test_a_command_may_take_some_with_other_defaults() -> None:
    assert run([], names=("rows", "word"), defaults={"word": "b"}) == {"rows": 3, "word": "b", "own": 0, "shown": ""}


def test_the_help_is_that_of_the_field() -> None:
    shown = run(["--help"])["shown"]
    for words in ("--rows", "Rows.", "[default: 3]", "--lights", "--no-lights", "--fast-lane", "INTEGER|full", "Kinds"):
        assert words in shown
    assert "--no-fast-lane" not in shown


def test_every_field_of_a_training_is_an_option() -> None:
    assert list(options_of(TrainConfig)) == [field.name for field in dataclasses.fields(TrainConfig)]
    assert set(options_of(ProblemConfig)) < set(options_of(TrainConfig))
