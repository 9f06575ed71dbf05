"""What two workers agree on: a drawn seed, and where a run goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tfmb.distribution import make_strategy
from tfmb.distribution.consensus import check_same, of_first_worker, reason_of_any

SCRIPT = """
import os, json, sys, hashlib
import numpy as np
import tfmb
from tfmb.backend import keras
from pathlib import Path
from tfmb.errors import DataError
from tfmb.runs.run_record import read_run, write_run
from tfmb.distribution.consensus import check_same, of_first_worker, reason_of_any

rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
strategy = tfmb.distribution.make_strategy("multi-worker")
assert of_first_worker(5 + rank, strategy) == 5
check_same(3, strategy, "threes")
try:
    check_same(rank, strategy, "ranks")
except DataError as error:
    assert "differ in ranks" in str(error)
else:
    raise AssertionError
assert reason_of_any(lambda: None, strategy)() is None
found = reason_of_any(lambda: "told" if rank else None, strategy)()
assert found == ("told" if rank else "another worker was asked to end")

x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
def build():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
# Each process draws a seed of its own: the first one's decides the order for both.
history = tfmb.fit(build, x, x[:, :1], 8, 2, 0, optimizer="sgd", loss="mse", strategy="multi-worker",
                   run_dir=sys.argv[1] + "/run")
print("digest", hashlib.sha256(b"".join(w.tobytes() for w in history.model.get_weights())).hexdigest(), flush=True)

# A directory that only the first worker sees.
own = sys.argv[1] + f"/own-{rank}"
given = dict(optimizer="sgd", loss="mse", strategy="multi-worker", seed=0, run_dir=own)
tfmb.fit(build, x, x[:, :1], 8, 2, 0, **given)
if rank == 0:
    record = read_run(own)
    record["status"] = "preempted"
    write_run(Path(own), record)
try:
    tfmb.fit(build, x, x[:, :1], 8, 2, 0, resume=True, **given)
except DataError as error:
    print("refused", error, flush=True)
"""


@pytest.mark.process
def test_two_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "tfmb",
        "launch",
        "--workers",
        "2",
        "--",
        sys.executable,
        str(script),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    digests = [line.split("digest ")[1] for line in done.stdout.splitlines() if "digest " in line]
    assert len(digests) == 2
    assert len(set(digests)) == 1, digests
    assert done.stdout.count("differ in the number of batches they have behind them") == 2, done.stdout


@pytest.mark.parametrize("replicas", [1, 2])
def test_one_process_agrees_with_itself(replicas: int) -> None:
    strategy = make_strategy("auto", replicas)
    assert of_first_worker(7, strategy) == 7
    check_same(7, strategy, "sevens")
    assert reason_of_any(lambda: "told", strategy)() == "told"
