"""The largest batch that fits: limits that are known, and processes that die in every way."""

import json
import math
import re
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfmb.advice.jobs import ProblemConfig, largest_batch_of
from tfmb.advice.memory import NothingFitsError, Trial, largest_batch, largest_that_fits, try_in_process
from tfmb.advice.model_alone import model_bytes
from tfmb.backend import keras
from tfmb.cli import main
from tfmb.environment.children import Ended
from tfmb.errors import ConfigError

SLEEPS = "import time; time.sleep(60.125)"


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**6), st.integers(0, 3 * 10**6))
@example(1, 0)
@example(10**6, 0)
@example(2**19, 2**19)
def test_a_limit_is_found_in_few_trials(limit: int, room: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> Trial:
        tried.append(size)
        return Trial(batch_size=size, fits=size <= limit, why="too large")

    found = largest_that_fits(fits, limit + room)
    assert found.batch_size == limit
    assert limit in tried  # it ran
    assert len(tried) <= 2 * math.log2(limit) + 4
    assert len(set(tried)) == len(tried)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**6))
def test_a_tolerance_saves_trials_and_the_answer_still_ran(limit: int) -> None:
    tried: dict[int, bool] = {}

    def fits(size: int) -> Trial:
        tried[size] = size <= limit
        return Trial(batch_size=size, fits=tried[size], why="too large")

    found = largest_that_fits(fits, 10**7, tolerance=0.05)
    assert found.batch_size is not None
    assert tried[found.batch_size]
    assert limit / 1.05 - 1 <= found.batch_size <= limit
    assert len(tried) <= math.log2(limit) + 8


def test_not_even_one() -> None:
    found = largest_that_fits(lambda size: Trial(batch_size=size, fits=False, why="no room"), 100)
    assert found.batch_size is None
    assert "no room" in found.reason
    assert len(found.trials) == 1


def test_all_fit() -> None:
    found = largest_that_fits(lambda size: Trial(batch_size=size, fits=True), 100)
    assert found.batch_size == 100
    assert "all 100 examples fit" in found.reason


def run(code: str, told: str = "{}", seconds: float = 20.0) -> Trial:
    return try_in_process([sys.executable, "-c", code], told, 7, seconds)


@pytest.mark.process
@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import os; os.abort()", "SIGABRT"),
        ("raise SystemExit('no such model')", "no such model"),
        ("raise MemoryError", "MemoryError"),
        ("print('nothing of use')", "nothing that makes sense"),
        ("print('[]')", "nothing that makes sense"),
        ("import sys; sys.stdin.close(); raise SystemExit(3)", "exit code 3"),
    ],
)
def test_whatever_becomes_of_the_process_is_said(code: str, why: str) -> None:
    found = run(code)
    assert not found.fits
    assert why in found.why
    assert found.batch_size == 7


@pytest.mark.process
def test_one_that_hangs_is_ended_with_its_children() -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPS!r}])"
    begin = time.monotonic()
    found = run(code, seconds=1.0)
    assert "more than 1 s" in found.why
    assert time.monotonic() - begin < 10
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert SLEEPS not in listed


@pytest.mark.process
def test_one_that_takes_all_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfmb.advice.memory._available_bytes", lambda: 200 * 2**20)
    found = run(f"held = bytearray(400 * 2**20); {SLEEPS}")
    assert "nearly all memory" in found.why


@pytest.mark.parametrize(
    ("code", "memory"),
    [
        ("raise MemoryError", True),
        ("raise SystemExit(4)", True),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", True),
        ("import os; os.abort()", True),
        ("raise SystemExit('no such model')", False),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", False),
    ],
)
def test_what_ended_for_want_of_memory_is_known(code: str, memory: bool) -> None:
    assert run(code).out_of_memory == memory


@pytest.mark.process
def test_a_large_message_is_read_by_the_process() -> None:
    code = "import json, sys; print(json.dumps({'peak_bytes': len(sys.stdin.read())}))"
    assert run(code, "x" * 1_000_000).peak_bytes == 1_000_000


def config(**given: Any) -> ProblemConfig:
    return ProblemConfig(dataset="digits", model="mlp", **given)


def nothing_fits(monkeypatch: pytest.MonkeyPatch, **why: Any) -> None:
    trial = Trial(batch_size=1, fits=False, **why)
    monkeypatch.setattr("tfmb.advice.memory.try_batch", lambda *_: trial)
    monkeypatch.setattr("tfmb.advice.memory._available_bytes", lambda: 200 * 2**20)


@pytest.mark.parametrize(
    ("optimizer", "mend"),
    [(None, "give a smaller --model, or --optimizer sgd"), ("sgd", "give a smaller --model")],
)
def test_where_not_even_one_example_fits_it_says_what_there_is(
    optimizer: str | None, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_fits(monkeypatch, why="out of memory", out_of_memory=True)
    counted = Ended(code=0, output=json.dumps(3 * 2**30))
    monkeypatch.setattr("tfmb.advice.jobs.ask", lambda *_: counted)
    with pytest.raises(NothingFitsError) as caught:
        largest_batch_of(config(optimizer=optimizer), 100, lambda line: None)
    assert str(caught.value) == (
        "not even one example fits: 200 MiB of memory is free, and the model alone (weights, gradients, the "
        f"optimizer's slots) takes 3,072 MiB: {mend}"
    )
    assert caught.value.exit_code == 4


def test_where_nothing_runs_for_another_reason_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_fits(monkeypatch, why="no such model")
    with pytest.raises(ConfigError, match="not even a batch of one example runs: 1 did not: no such model"):
        largest_batch_of(config(), 100, lambda line: None)


def test_a_model_that_cannot_be_counted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_fits(monkeypatch, why="out of memory", out_of_memory=True)
    failed = Ended(code=1, errors="Traceback\nValueError: no shape")
    monkeypatch.setattr("tfmb.advice.jobs.ask", lambda *_: failed)
    with pytest.raises(
        NothingFitsError, match=r"could not be counted \(ValueError: no shape\): give a smaller --model"
    ):
        largest_batch_of(config(), 100, lambda line: None)


@pytest.mark.parametrize(("optimizer", "numbers"), [(None, 4), ("sgd", 2), ("momentum", 3), ("rmsprop", 3)])
def test_a_model_is_counted_and_not_made(optimizer: str | None, numbers: int) -> None:
    """Weights, a gradient for each, and the optimizer's slots; Adam, which it is compiled with, keeps two."""

    def build() -> Any:
        model = keras.Sequential([keras.Input((10**6,)), keras.layers.Dense(10**6), keras.layers.BatchNormalization()])
        model.compile("adam", "mse", metrics=["mae"])
        return model

    trained, seen = 4 * (10**12 + 3 * 10**6), 4 * 2 * 10**6
    assert model_bytes(build, optimizer) == numbers * trained + seen


@pytest.mark.process
def test_fits_ends_with_4_where_not_even_one_example_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tfmb.advice.memory._available_bytes", lambda: 200 * 2**20)  # TensorFlow alone takes more
    with pytest.raises(SystemExit, match="4"):
        main(["advise", "--memory", "--dataset", "digits", "--model", "mlp"])
    said = capsys.readouterr()
    assert said.out == ""
    line = said.err.strip().splitlines()[-1]
    told = r"not even one example fits: 200 MiB of memory is free, and the model alone \(.*\) takes 2 MiB: give .*"
    assert re.fullmatch(rf"tfmb: error\[4\]: {told}", line)
    assert set(re.findall(r"--[a-z-]+", line)) <= {"--model", "--optimizer"}


@pytest.mark.slow
def test_a_real_batch_trains_and_evaluates_in_a_process() -> None:
    said: list[str] = []
    found = largest_batch({"dataset": "digits", "model": "mlp"}, 2, say=said.append)
    assert found.batch_size == 2
    assert [trial.fits for trial in found.trials] == [True, True]
    assert all(trial.peak_bytes and trial.peak_bytes > 10**8 for trial in found.trials)
    assert "MiB at most" in said[0]


@pytest.mark.process
def test_a_wrong_model_is_said_by_its_own_words() -> None:
    found = largest_batch({"dataset": "digits", "model": "no:such"}, 100)
    assert found.batch_size is None
    assert "no" in found.reason
    assert json.dumps(found.reason)
