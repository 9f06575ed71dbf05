"""The scripts in `examples/`, run as they stand. Those that take more than some seconds are in `tests/slow`."""

import ast
from pathlib import Path

import pytest
from example_runs import EXAMPLES, number_after, printed

pytestmark = [pytest.mark.docs, pytest.mark.usefixtures("fresh_keras")]

ELSEWHERE = {"same_bits.py", "search.py", "workers.py"}  # tests/slow/test_examples_slow.py
LEARNS = {  # arguments, and what must be printed, at least
    "own_model.py": ([], "test accuracy", 0.8),
    "tabular.py": ([], "val_accuracy", 0.9),
    "advise_train_export.py": ([], "test accuracy", 0.8),
    # Nothing is downloaded here: the set that scikit-learn ships stands in for TFDS's.
    "tfds_dataset.py": (["digits"], "test accuracy", 0.8),
    "from_fit.py": ([], "val_accuracy", 0.85),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(LEARNS) | ELSEWHERE


@pytest.mark.parametrize("name", LEARNS)
def test_the_example_learns(name: str, same_process: None, busy_or_not: None) -> None:
    arguments, words, least = LEARNS[name]
    out = printed(name, *arguments)
    assert number_after(words, out) >= least
    if name == "from_fit.py":  # the best weights are those that Keras's callback wrote
        assert number_after("the same of best.keras:", out) == number_after("val_accuracy", out)
    if name == "advise_train_export.py":
        assert "saved_models/digits/1 answers [" in out


def test_your_own_model_takes_no_more_than_15_lines() -> None:
    code = ast.parse((EXAMPLES / "own_model.py").read_text()).body[1:]
    assert sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in code) <= 15
