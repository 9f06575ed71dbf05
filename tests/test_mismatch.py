"""A model that does not take its data ends a command in one line; other errors come through as they are."""

from pathlib import Path

import pytest

from tfmb.cli import main
from tfmb.cli.mismatch import told_of_mismatch

pytestmark = pytest.mark.usefixtures("fresh_keras")
MINE = """
from tfmb.backend import keras

def build():
    return made((4,), 10)

def made(shape, outputs):
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(outputs, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model

def few_outputs():
    return made((28, 28, 1), 3)

def broken():
    raise KeyError("of the user's")
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mismatched.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--epochs", "1"],
        ["lr-range"],
        ["doctor", "--profile"],
        ["tune", "--max-trials", "1", "--batch-size", "64", "--learning-rate", "0.1"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize(
    ("function", "words"), [("build", "does not take these examples (expected"), ("few_outputs", "too few outputs")]
)
def test_one_line(command: list[str], function: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--dataset", "digits", "--model", f"mismatched:{function}"])
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("tfmb: error[2]: the model ")
    assert words in line
    assert line.isprintable()


def test_errors_of_the_users_own_code() -> None:
    with pytest.raises(KeyError, match="of the user's"):
        main(["train", "--dataset", "digits", "--model", "mismatched:broken"])
    assert told_of_mismatch(ValueError("anything")) is None
