"""The list of cases that run by night names tests that there are."""

import ast
from pathlib import Path

from cases import by_night

TESTS = Path(__file__).parent


def test_every_case_by_night_is_one() -> None:
    gone = []
    for case in by_night():
        file, _, test = case.partition("::")
        path, name = TESTS / file, test.partition("[")[0]
        known = path.is_file() and any(
            isinstance(node, ast.FunctionDef) and node.name == name for node in ast.walk(ast.parse(path.read_text()))
        )
        if not known:
            gone.append(case)
    assert gone == []


def test_none_is_listed_twice() -> None:
    assert len(by_night()) == len(set(by_night()))
