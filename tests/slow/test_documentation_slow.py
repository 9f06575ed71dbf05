"""The documentation's Python as it stands, and its commands, run with less to do where they would take minutes."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from documented import folder_with_mine
from documented_commands import words_of
from pages import PAGES
from test_documentation import BLOCKS, by_name, commands, programs, run_page

from tfmb.cli import main

# What is added to a command, last, where an option that is given again counts.
LESS = {
    "train": "--dataset digits --model mlp --epochs 1 --validation-size 100",
    "advise": "--dataset digits --budget 3s",
    "lr-range": "--dataset digits --learning-rates 1e-6:10,updates=20",
    "tune": "--dataset digits --model mlp --max-trials 2 --retrain 1,epochs=1",
    "doctor": "",
    "evaluate": "",
    "export": "",
    "list": "",
    "run": "",
    "predict": "",
    "verify": "",
}
ELSEWHERE = ("--executor", "--hosts", "--memory")  # several hosts, and a search of the machine's whole memory


@pytest.mark.parametrize("page", [page for page in PAGES if any(map(programs, BLOCKS[page]))], ids=by_name)
def test_the_python_of_a_page_runs_as_it_stands(page: Path, tmp_path: Path) -> None:
    assert run_page(page, tmp_path, shrink=False)


def runnable(page: Path) -> list[tuple[str, list[str]]]:
    """(where it stands, words) of the page's commands that are not run by the default suite."""
    found = [(block.where, words_of(command)) for block, command in commands(page) if block.mark != "run"]
    return [(where, words) for where, words in found if words[0] == "tfmb" and not set(words) & set(ELSEWHERE)]


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=by_name)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    with folder_with_mine(tmp_path):
        prepare(tmp_path)
        for number, (where, words) in enumerate(runnable(page)):
            (tmp_path / "runs" / "mnist-cnn-1" / "run.json").touch()  # the newest, which `predict` takes
            if words[1] == "launch":
                launched(words, tmp_path / f"launched-{number}")
            else:
                assert ended(less(words)) == 0, f"{where}: {shlex.join(words)}"


def test_every_kind_of_command_is_among_them() -> None:
    assert {words[1] for page in PAGES for _, words in runnable(page)} == {*LESS, "launch"}


def prepare(folder: Path) -> None:
    """The runs, exports and image that the commands name."""
    for name in ("mnist-cnn-1", "mnist-cnn-2"):
        small = ["--dataset", "digits", "--model", "mlp", "--epochs", "1"]
        assert main(["train", *small, "--run-dir", f"runs/{name}"]) == 0
    own = ["--model", "mine:build", "--dataset", "mine:load", "--epochs", "1"]
    assert main(["train", *own, "--run-dir", "runs/mine"]) == 0
    for name in ("mnist", "mnist-cnn-1"):
        assert main(["export", "runs/mnist-cnn-1", "--output", f"saved_models/{name}"]) == 0
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
    (folder / "digit.png").write_bytes(tf.io.encode_png(image).numpy())


def less(words: list[str]) -> list[str]:
    """The same command with less to do."""
    added = shlex.split(LESS[words[1]])
    if "--dataset" in words:  # one's own, which no --dataset goes with
        added = added[2:]
    if "mine:build" in words:
        added = [word for word in added if word not in ("--model", "mlp")]
    if "--resume" in words or "--help" in words:
        added = []
    if "fast" in words or "full" in words:
        added = [word for word in added if word not in ("--model", "mlp")]
    return words[1:] + added


def ended(words: list[str]) -> int:
    """The exit code."""
    try:
        return main(words)
    except SystemExit as error:
        return int(error.code or 0)


def launched(words: list[str], run: Path) -> None:
    """Runs `tfmb launch` in processes of its own."""
    inner = words.index("--")
    small = ["--dataset", "digits", "--model", "mlp", "--epochs", "1", "--run-dir", str(run)]
    command = [*words[1 : inner + 1], sys.executable, "-m", "tfmb", *words[inner + 2 :], *small]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "tfmb", *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
