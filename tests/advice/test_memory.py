"""The largest batch that fits: limits that are known, and processes that die in every way."""

import json
import math
import subprocess
import sys
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfmb.advice.memory import Trial, largest_batch, largest_that_fits, try_in_process

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


def test_one_that_hangs_is_ended_with_its_children() -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPS!r}])"
    begin = time.monotonic()
    found = run(code, seconds=1.0)
    assert "more than 1 s" in found.why
    assert time.monotonic() - begin < 10
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert SLEEPS not in listed


def test_one_that_takes_all_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfmb.advice.memory._available_bytes", lambda: 200 * 2**20)
    found = run(f"held = bytearray(400 * 2**20); {SLEEPS}")
    assert "nearly all memory" in found.why


def test_a_large_message_is_read_by_the_process() -> None:
    code = "import json, sys; print(json.dumps({'peak_bytes': len(sys.stdin.read())}))"
    assert run(code, "x" * 1_000_000).peak_bytes == 1_000_000


def test_a_real_batch_trains_and_evaluates_in_a_process() -> None:
    said: list[str] = []
    found = largest_batch({"dataset": "digits", "model": "mlp"}, 2, say=said.append)
    assert found.batch_size == 2
    assert [trial.fits for trial in found.trials] == [True, True]
    assert all(trial.peak_bytes and trial.peak_bytes > 10**8 for trial in found.trials)
    assert "MiB at most" in said[0]


def test_a_wrong_model_is_said_by_its_own_words() -> None:
    found = largest_batch({"dataset": "digits", "model": "no:such"}, 100)
    assert found.batch_size is None
    assert "no" in found.reason
    assert json.dumps(found.reason)
