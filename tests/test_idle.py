"""Options that could change nothing are refused by their name."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.cli import main
from tfmb.jobs.config import TrainConfig
from tfmb.jobs.restore import restore_run
from tfmb.jobs.train import train_job
from tfmb.runs.run_record import read_run, write_run

pytestmark = pytest.mark.usefixtures("fresh_keras", "same_process")
OWN = """
import numpy as np
from tfmb.backend import keras

def load():
    return np.arange(32.0, dtype="float32").reshape(16, 2) / 32, np.arange(16) % 2

def build():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of the user's, and a folder that is no run."""
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train_job(TrainConfig(dataset="digits", model="mlp", epochs=1), lambda name: folder, lambda line: None, verbose=0)
    return folder


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = capsys.readouterr()
    assert ended.value.code == 2, err
    assert not out
    return err.strip().splitlines()[-1].removeprefix("tfmb: error[2]: ")


EARLY = {
    "--batch-size": "doctor --batch-size 32",
    "--model": "doctor --model mlp --json",
    "--rate-scaling": "train --rate-scaling linear",
    "nesterov": "train --optimizer sgd,nesterov",
    "nesterov ": "train --optimizer momentum,momentum=0,nesterov",
    "--against": "export RUN --against latest,made_up --dataset mine:load",
    "--model ": "predict x.png --run there --model mine:build",
    "--mirror": "predict x.png --run there --mirror m",
    "--mirror ": "lr-range --dataset mine:load --mirror m",
    "runs/a": "verify mine:build runs/a --model mine:build --dataset mine:load",
    "--retrain": "tune --retrain 0,epochs=1",
    "no_pruning": "tune --oracle hyperband,no_pruning",
    "round_size": "tune --oracle grid,round_size=2",
    "dropout": "tune --model mine:build --search dropout=0.5",
    "momentum": "tune --search optimizer=adam,adamw --search momentum=0.5",
}


@pytest.mark.parametrize("option", EARLY)
def test_nothing_could_come_of_it(option: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(EARLY[option].split(), capsys)
    assert option.strip() in line
    assert any(word in line for word in ("leave", "set it in", "do not", "give the batch size", "give the number"))


def test_what_is_looked_at_is_no_idle_option(finished: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(finished)
    assert "--dataset mine:load" in refusal(["evaluate", folder, "--dataset", "mine:load"], capsys)
    Path("x.png").write_bytes(tf.io.encode_png(np.zeros((8, 8, 1), "uint8")).numpy())
    assert "--mirror is for rows" in refusal(["predict", "x.png", "--run", folder, "--mirror", "m"], capsys)
    assert "--invert is for image files" in refusal(["predict", "test:0", "--run", folder, "--invert"], capsys)
    assert main(["predict", "x.png", "test:0", "--run", folder, "--invert"]) == 0
    assert "name the run behind it" in refusal(
        ["verify", str(exported(finished, here)), "--model", "mine:build"], capsys
    )
    line = refusal(["verify", "there", "--mirror", "m"], capsys)
    assert "--mirror does not belong to an export" in line


def exported(run: Path, folder: Path) -> Path:
    from tfmb.serving.export_run import export_run

    export_run(restore_run(run), folder / "there")
    return folder / "there"


@pytest.mark.parametrize(
    "options",
    [
        ["--schedule", "cosine"],
        ["--schedule", "constant,warmup=2"],
        ["--rate-scaling", "sqrt,base_batch_size=8"],
        ["--learning-rate", "0.5"],
    ],
)
def test_a_rate_of_a_model_that_brings_its_own(
    options: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["train", "--model", "mine:build", "--dataset", "mine:load", "--epochs", "1", "--batch-size", "4"]
    line = refusal([*own, *options], capsys)
    assert line.startswith("mine:build is compiled with SGD, which would not use ")
    assert options[0][2:].replace("-", "_") in line


def test_a_new_rate_for_a_run_that_goes_on(here: Path) -> None:
    """What is accepted as drift is what the run goes on with."""
    words = ["train", "--model", "mlp", "--dataset", "mine:load", "--batch-size", "4", "--checkpoint-every", "2"]
    assert main([*words, "--epochs", "1", "--run-dir", "run", "--learning-rate", "0.25"]) == 0
    write_run(Path("run"), {**read_run(Path("run")), "status": "running"})
    shutil.rmtree("run/checkpoints/step-000000000004")  # which was the end
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which says that the rate is another
        assert main(["train", "--resume", "run", "--allow-mismatch", "--learning-rate", "0.5"]) == 0
    assert json.loads(Path("run/checkpoints/step-000000000004/MANIFEST.json").read_text())["learning_rate"] == 0.5


def test_reading_ahead_where_nothing_is_read() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x: Any = np.ones((4, 2), "float32")
    with pytest.warns(UserWarning, match="prefetch=3 changes nothing"):
        tfmb.fit(model, x, x[:, :1], prefetch=3, verbose=0)
