"""What a command cannot honour or read ends it in one line, and never in silence."""

import json
import os
import shutil
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras
from tfmb.cli import main
from tfmb.errors import StorageError
from tfmb.jobs.config import TrainConfig
from tfmb.jobs.train import train_job

pytestmark = pytest.mark.usefixtures("fresh_keras", "same_process")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train_job(TrainConfig(dataset="digits", model="mlp", epochs=1), lambda name: folder, lambda line: None, verbose=0)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def ends(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must end with a code in one line; gives that."""

    def ends(code: int, *command: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
            main(list(command))
        out, err = capsys.readouterr()
        assert ended.value.code == code, err
        assert not out
        (line,) = [line for line in err.splitlines() if "error[" in line]
        return line

    return ends


def test_an_option_that_a_finished_run_cannot_follow(run: Path, ends: Callable[..., str]) -> None:
    line = ends(2, "train", "--resume", str(run), "--epochs", "50", "--learning-rate", "0.1")
    assert "is finished: " in line
    assert "--learning-rate" in line
    assert "--epochs" in line
    assert "would change nothing" in line


def test_a_finished_run_answers_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(run), "--epochs", "1"]) == 0
    assert "digits: test accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["weights.npz", "run.json", "metrics.jsonl"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_files_of_a_run_that_are_none(
    name: str, make: Callable[[Path], Any], run: Path, tmp_path: Path, ends: Callable[..., str]
) -> None:
    (run / name).unlink()
    make(run / name)
    line = ends(65, "export", str(run), "--output", str(tmp_path / "m"))
    assert f"{run / name} cannot be read (it is no plain file)" in line
    assert not (tmp_path / "m").exists() or not list((tmp_path / "m").iterdir())


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_images_that_are_no_files(
    make: Callable[[Path], Any], run: Path, tmp_path: Path, ends: Callable[..., str]
) -> None:
    make(tmp_path / "a.png")
    assert "it is no plain file" in ends(65, "predict", "--run", str(run), str(tmp_path / "a.png"))


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_a_record_that_is_no_file_is_no_missing_run(
    make: Callable[[Path], Any], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "run.json").unlink()
    make(run / "run.json")
    assert main(["list", str(run)]) == 0
    assert "damaged" in capsys.readouterr().out


def test_a_digit_of_the_normalization(run: Path, ends: Callable[..., str]) -> None:
    """It gave a test accuracy of 0.17 for 0.82, and 0 for the exit code."""
    text = json.loads((run / "run.json").read_text())
    text["model"]["normalization"]["mean"] += 1.0
    (run / "run.json").write_text(json.dumps(text))
    assert "is not as it was written" in ends(65, "evaluate", str(run))


def test_many_devices_on_few_cores_are_told_of_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tfmb.jobs.train.available_cores", lambda: 1)
    said: list[str] = []
    config = TrainConfig(dataset="digits", model="mlp", epochs=1, devices=2, batch_size="full")
    train_job(config, lambda name: tmp_path, said.append, verbose=0)
    assert [line for line in said if line.startswith("warning: 2 devices share 1 core(s)")]


def model() -> Any:
    found = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    found.compile("sgd", "mse")
    return found


X, Y = np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)


def test_a_run_that_is_renamed_while_it_is_trained(tmp_path: Path) -> None:
    class Rename(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            (tmp_path / "a").rename(tmp_path / "b")

    with pytest.raises(StorageError, match=r"a was renamed or removed during the training: if it was renamed, go on"):
        tfmb.fit(model(), X, Y, run_dir=tmp_path / "a", epochs=3, verbose=0, callbacks=[Rename()])
    assert not (tmp_path / "a").exists()


def test_events_that_cannot_be_written(tmp_path: Path) -> None:
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"run_dir": tmp_path / "a", "epochs": 3, "verbose": 0, "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        tfmb.fit(model(), X, Y, callbacks=[Interrupt()], **options)
    shutil.rmtree(tmp_path / "a" / "tensorboard")
    (tmp_path / "a" / "tensorboard").write_text("no folder")
    with pytest.raises(StorageError, match=r"\A[^\n]*TensorBoard's events cannot be written"):
        tfmb.fit(model(), X, Y, callbacks=[Interrupt()], resume=True, **options)


def test_a_disk_that_is_full_is_told_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def full(value: Any, *given: Any, **named: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tfmb.training.callbacks.loggers.json", types.SimpleNamespace(dumps=full))
    line = ends(74, "train", "--dataset", "digits", "--model", "mlp", "--epochs", "1", "--run-dir", "r")
    assert "a file" not in line
    assert "metrics.jsonl: No space left on device" in line
