"""The scripts and notebooks in `examples/`, run as they stand; those that take long are in `tests/slow`."""

import ast
import contextlib
from pathlib import Path

import nbformat
import pytest
from example_runs import EXAMPLES, number_after, printed
from notebooks import run_notebook

pytestmark = [pytest.mark.docs, pytest.mark.usefixtures("fresh_keras")]

ELSEWHERE = {"same_bits.py", "search.py", "workers.py"}  # tests/slow/test_examples_slow.py
LEARNS = {  # arguments, and what must be printed, at least
    "own_model.py": ([], "test accuracy", 0.8),
    "tabular.py": ([], "val_accuracy", 0.9),
    "advise_train_export.py": ([], "test accuracy", 0.8),
    # Nothing is downloaded here: the set that scikit-learn ships stands in for TFDS's.
    "tfds_dataset.py": (["digits"], "test accuracy", 0.8),
    "from_fit.py": ([], "val_accuracy", 0.85),
    "own_step_distillation.py": ([], "test accuracy", 0.7),
    "own_step_gan.py": (["run"], "d_loss", 0.1),
    "own_step_vae.py": (["run"], "val_reconstruction", 1.0),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(LEARNS) | ELSEWHERE


@pytest.mark.parametrize("name", LEARNS)
def test_the_example_learns(name: str, same_process: None, busy_or_not: None) -> None:
    arguments, words, least = LEARNS[name]
    # Keras's callback saves a model that holds our dropout.
    warns = pytest.warns(UserWarning, match="loads only where tfmb is imported")
    with warns if name == "from_fit.py" else contextlib.nullcontext():
        out = printed(name, *arguments)
    assert number_after(words, out) >= least
    if name == "from_fit.py":  # the best weights are those that Keras's callback wrote
        assert number_after("the same of best.keras:", out) == number_after("val_accuracy", out)
    if name == "advise_train_export.py":
        assert "saved_models/digits/1 answers [" in out


# A machine that is busy with other tests must not make the advice undetermined.
BUSY_OR_NOT = "import math, tfmb.advice.predictions\ntfmb.advice.predictions.TELLS = math.inf"
NOTEBOOKS = {
    "five_minutes.ipynb": [
        "the same bits: True",
        "SIGINT: stopped after",
        "epochs [0, 1, 2, 3, 4, 5]",
        "saved_models/five-minutes/1",
    ],
    "which_batch_size.ipynb": ["it took", "application/vnd.plotly.v1+json"],
}


def test_every_notebook_is_run_and_has_no_outputs() -> None:
    assert {path.name for path in EXAMPLES.glob("*.ipynb")} == set(NOTEBOOKS)
    for name in NOTEBOOKS:
        cells = [cell for cell in nbformat.read(EXAMPLES / name, as_version=4).cells if cell.cell_type == "code"]
        assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.process
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_runs_from_its_first_cell_to_its_last(name: str, tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(BUSY_OR_NOT))
    out = "".join(run_notebook(notebook, tmp_path))
    for words in NOTEBOOKS[name]:
        assert words in out
    assert number_after("test accuracy", out) >= 0.85


def test_your_own_model_takes_no_more_than_15_lines() -> None:
    code = ast.parse((EXAMPLES / "own_model.py").read_text()).body[1:]
    assert sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in code) <= 15
