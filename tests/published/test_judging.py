"""What counts as the same, and what the page says of it."""

import json
from pathlib import Path

from .judging import judge, same_numbers
from .page import write_page
from .running import Ended

FIT: dict[str, object] = {"call": "fit", "model": "Model", "gives": {"loss": [1.0]}}


def ended(*calls: dict[str, object], code: int | None = 0, said: str = "") -> Ended:
    return Ended(code, list(calls), said, 1.0)


def test_numbers_agree_up_to_rounding_and_names_exactly() -> None:
    assert same_numbers({"loss": [1.0, "nan"]}, {"loss": [1.0001, "nan"]})
    assert not same_numbers({"loss": [1.0]}, {"loss": [1.01]})
    assert not same_numbers({"loss": [1.0]}, {"loss": [1.0], "acc": [1.0]})
    assert not same_numbers([1.0], [1.0, 1.0])


def test_verdicts() -> None:
    other: dict[str, object] = {**FIT, "gives": {"loss": [2.0]}}
    refused: dict[str, object] = {"call": "fit", "model": "Model", "error": "ConfigError: no"}
    assert judge(ended(FIT), ended(FIT), None) == ("alike", "")
    assert judge(ended(FIT), ended(refused, code=2), None)[0] == "refused"
    assert judge(ended(FIT, FIT), ended(FIT, code=1), None)[0] == "refused"
    assert judge(ended(FIT, code=1, said="KeyError: x"), ended(FIT, code=1, said="KeyError: y"), None)[0] == "alike"
    assert judge(ended(FIT), ended(FIT, code=1, said="KeyError: x"), None)[0] == "ends otherwise"
    assert judge(ended(FIT), ended(other), ended(FIT))[0] == "differs"
    assert judge(ended(FIT), ended(other), ended(other))[0] == "alike"


def test_the_page_counts(tmp_path: Path) -> None:
    lines = [
        {"script": "a.py", "verdict": "alike", "about": "", "calls": {"fit": 1}},
        {"script": "b.py", "verdict": "refused", "about": "call 1", "calls": {"fit": 2}},
        {"script": "c.py", "verdict": "not by Keras", "about": "ModuleNotFoundError: torch"},
    ]
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text("\n".join(map(json.dumps, lines)))
    write_page([ledger], tmp_path / "page.md", "somewhere", "Today.")
    text = (tmp_path / "page.md").read_text()
    assert "| call `fit` | 3 |" in text
    assert "unchanged under `tfmb run --strict` | 1 (50 %) |" in text
    assert "| a package that is not installed | 1 |" in text
    assert "| b.py | 2 fit | refused: call 1 |" in text
