"""The house keeps its rules: imports point one way, and nothing grows past what a reader holds in mind."""

import ast
import configparser
import re
from pathlib import Path

import pytest
from house.rules import ORDER, modules_of, problems, room_of

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def modules() -> dict[str, str]:
    return modules_of(ROOT)


def test_the_house_keeps_its_rules(modules: dict[str, str]) -> None:
    assert problems(modules) == []


def test_every_room_is_there(modules: dict[str, str]) -> None:
    assert {room for room in map(room_of, modules) if room != "training"} == set(ORDER)


LONG = "def f():\n" + "    x = 1\n" * 61
MANY = f"def f({', '.join(f'a{i}' for i in range(13))}):\n    pass\n"


@pytest.mark.parametrize(
    ("module", "source", "says"),
    [
        ("tfmb.data.idx", "from tfmb.training.fit import fit\n", "tfmb.data.idx imports tfmb.training.fit"),
        ("tfmb.advice.jobs", "import tfmb.cli.train\n", "tfmb.advice.jobs imports tfmb.cli.train"),
        ("tfmb.tuning.space", "from .. import cli\n", "tfmb.tuning.space imports tfmb.cli"),
        ("tfmb.seeds", "x = 1\n" * 401, "tfmb.seeds has 401 lines"),
        ("tfmb.seeds", LONG, "tfmb.seeds:f has a body of 61 lines"),
        ("tfmb.seeds", MANY, "tfmb.seeds:f has 13 parameters"),
        ("tfmb.news", "from tfmb import seeds\n", "tfmb.news is in no room"),
    ],
)
def test_what_is_planted_is_found(modules: dict[str, str], module: str, source: str, says: str) -> None:
    (found,) = [line for line in problems({**modules, module: source}) if line.startswith(f"{module}")][:1]
    assert found.startswith(says)


def test_types_alone_make_no_arrow(modules: dict[str, str]) -> None:
    source = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from tfmb.training.fit import fit\n"
    assert [line for line in problems({**modules, "tfmb.seeds": source}) if "tfmb.seeds" in line] == []


WALKS = re.compile(r"`([\w/]+\.py)` `([\w.]+)`")


def test_the_walks_name_what_there_is() -> None:
    """Each `path` `name` of docs/architecture.md is a function, class or method of that file."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = WALKS.findall(text)
    assert len(named) > 20
    gone = [f"{path} {name}" for path, name in named if not _defines(ROOT / "tfmb" / path, name.split("."))]
    assert gone == []


def test_every_path_of_the_page_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    paths = set(re.findall(r"`([\w/]+\.py)`", text))
    assert [path for path in sorted(paths) if not any((ROOT / top / path).is_file() for top in ("tfmb", ""))] == []


def _defines(path: Path, names: list[str]) -> bool:
    nodes: list[ast.stmt] = ast.parse(path.read_text()).body if path.is_file() else []
    for name in names:
        found = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name]
        if not found:
            return False
        nodes = found[0].body
    return True


def test_setup_lists_every_package() -> None:
    """A package that it does not list is missing where tfmb is installed, and nowhere else."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    listed = set(settings["options"]["packages"].split())
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "tfmb").rglob("__init__.py")}
    beside = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "tuning").rglob("__init__.py")}
    assert listed == {name for name in there if not name.startswith("tfmb.tuning")} | {f"tfmb.{n}" for n in beside}
