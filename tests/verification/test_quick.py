"""`tfmb verify module:build --quick`: a line for each check of a model, in a process as a user's CI starts it."""

import json
from pathlib import Path

import pytest
from verify_command import tfmb_command

MINE = """
import keras
import numpy as np


def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model

def uncompiled():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])

def random_start():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.set_weights([np.random.default_rng().normal(size=v.shape) for v in model.weights])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model

def load():
    return np.ones((6, 4), "float32"), np.arange(6) % 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


@pytest.mark.process
def test_a_model_is_checked_in_three_lines(folder: Path) -> None:
    done = tfmb_command("verify", "mine:build", "--quick", cwd=folder)
    assert done.returncode == 0, done.stderr
    *checks, verdict = done.stdout.splitlines()
    assert [line.partition(" (")[0].split(maxsplit=1) for line in checks] == [
        ["passed", "parity with model.fit"],
        ["passed", "replica invariance, to the bit"],
        ["passed", "resume exactness"],
    ]
    assert verdict == "mine:build: verified: 3 passed, 0 failed, 0 not applicable"


@pytest.mark.process
def test_a_model_that_begins_otherwise_each_time_is_found_on_the_users_data(folder: Path) -> None:
    done = tfmb_command("verify", "mine:random_start", "--quick", "--dataset", "mine:load", "--json", cwd=folder)
    assert done.returncode == 70, done.stderr
    report = json.loads(done.stdout)
    assert "parity with model.fit" in [check["name"] for check in report["checks"] if check["status"] == "failed"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["mine:uncompiled"], "mine:uncompiled: the model is not compiled"),
        (["mine:nothing"], "TARGET mine:nothing: module 'mine' has no function 'nothing'"),
        (["runs/a"], "TARGET 'runs/a' is not of the form package.module:function"),
        (["mine:build", "runs/a"], "runs/a does not belong to a check of a model"),
        (["mine:build", "--model", "mine:build"], "--model does not belong to a check of a model"),
    ],
)
def test_what_it_cannot_check_is_named(words: list[str], line: str, folder: Path) -> None:
    done = tfmb_command("verify", *words, "--quick", cwd=folder)
    assert done.returncode == 2
    assert line in done.stderr.splitlines()[-1]
