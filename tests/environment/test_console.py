"""What is a result stands on standard output, and with `--json` nothing else does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PRINTS = """
import os, subprocess, sys
from tfmb.environment.console import emit_json, results_alone, tell
print("before")
with results_alone():
    print("a library's words")
    subprocess.run([sys.executable, "-c", "print('a child')"], check=True)
    os.write(1, b"a runtime's words\\n")
    tell("a line")
    emit_json({"loss": float("nan")})
print("after")
"""


def test_results_are_alone_on_standard_output() -> None:
    done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["before", "a line", '{"loss": null}', "after"]
    assert sorted(done.stderr.splitlines()) == ["a child", "a library's words", "a runtime's words"]


def test_a_reader_that_went_away_is_told_once() -> None:
    words = PRINTS.replace('print("after")', "")
    with subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read().decode()
    assert said.count("BrokenPipeError") <= 1


BUILD = """
import keras

def build():
    print("a model is built")
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model
"""


@pytest.mark.process
def test_what_a_users_code_prints_is_not_in_a_line_of_json(tmp_path: Path) -> None:
    (tmp_path / "talks.py").write_text(BUILD)
    words = ["doctor", "--json", "--profile", "--model", "talks:build", "--dataset", "digits"]
    done = subprocess.run(
        [sys.executable, "-m", "tfmb", *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert "a model is built" in done.stderr
