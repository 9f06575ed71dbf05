"""Advice while a process beside it burns one core in bursts, against the advice of a quiet machine."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

WITHIN, ANSWERS = 1.25, 5
ASKED = ["advise", "--dataset", "digits", "--model", "mlp", "--target", "loss<=0.03", "--json"]
# Bursts and breaks of 0.3 to 2 s: shorter and longer than a round, and than an attempt.
BURNS = """
import random, time
random.seed({seed})
while True:
    until = time.monotonic() + random.uniform(0.3, 2)
    while time.monotonic() < until:
        pass
    time.sleep(random.uniform(0.3, 2))
"""


def advice() -> Any:
    done = subprocess.run([sys.executable, "-m", "tfmb", *ASKED], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print([line for line in done.stderr.splitlines() if "measured again" in line])
    print({key: found[key] for key in ("batch_size", "as_good_batch_sizes", "seconds", "seconds_interval", "reason")})
    print({p["batch_size"]: round(p["seconds"], 4) for p in found["predictions"]}, found["cost_seconds"])
    return found


@contextlib.contextmanager
def burner(seed: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", BURNS.format(seed=seed)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def quiet_advice() -> Any:
    """Skips the test where others keep the machine busy: there is nothing to compare with."""
    for _ in range(5):
        found = advice()
        if found["batch_size"] is not None:
            return found
        time.sleep(10)
    pytest.skip(f"the machine is not quiet, load {os.getloadavg()}: {found['reason']}")


@pytest.mark.slow
def test_answers_beside_bursts_are_those_of_a_quiet_machine_or_say_that_they_cannot_tell() -> None:
    quiet = quiet_advice()
    times = {p["batch_size"]: p["seconds"] for p in quiet["predictions"]}
    for number in range(ANSWERS):
        with burner(number):
            found = advice()
        if found["batch_size"] is None:
            assert "cannot tell" in found["reason"]
            continue
        assert times[found["batch_size"]] <= WITHIN * quiet["seconds"]
        assert 1 / WITHIN <= found["seconds"] / times[found["batch_size"]] <= WITHIN
        low, high = found["batch_size_interval"]
        assert low <= found["batch_size"] <= high
        assert found["batch_size"] in found["as_good_batch_sizes"]
