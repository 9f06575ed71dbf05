"""All system calls that `storage/test_atomic.py` takes a sample of; a disk that fills up under `tfmb train`."""

import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import syscall_faults
import tiny_run
from fork_server import ForkServer, needs_strace


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with ForkServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@needs_strace()
@pytest.mark.parametrize("start", ["nothing", "leftovers"])
@pytest.mark.filterwarnings("ignore:.*set aside")
def test_every_system_call(server: ForkServer, tmp_path: Path, start: str) -> None:
    every = syscall_faults.points(server, tmp_path / "dry", start)
    outcomes = Counter((point.fault, syscall_faults.inject(server, tmp_path, point)) for point in every)
    print(f"\n{len(every)} faults: {dict(outcomes)}")
    assert len(every) >= 100
    assert outcomes["SIGKILL", "killed"] == len(every) // 3
    assert all(outcomes[fault, "refused"] > outcomes[fault, "went on"] for fault in ("ENOSPC", "EIO"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prlimit")
def test_train_on_a_disk_that_fills_up(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tfmb", "train"]
    options = ["--dataset", "digits", "--epochs", "30", "--checkpoint-every", "30", "--log-every", "1000000"]
    for name in ("whole", "cut"):
        with (tmp_path / f"{name}.err").open("w") as err:
            job = subprocess.Popen([*command, *options, "--run-dir", name], cwd=tmp_path, stderr=err, stdout=err)
            if name == "cut":
                _await(job, tmp_path / name)
                resource.prlimit(job.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))  # no larger file from now on
            code = job.wait(timeout=300)
        assert code == (74 if name == "cut" else 0), (tmp_path / f"{name}.err").read_text()
    lines = [line for line in (tmp_path / "cut.err").read_text().splitlines() if "error" in line]
    assert len(lines) == 1
    assert lines[0].startswith("tfmb: error[74]: the checkpoint after ")
    assert not tiny_run.leftovers(tmp_path)
    done = subprocess.run([*command, "--resume", "cut"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "cut")]
    assert records[0]["weights_sha256"] == records[1]["weights_sha256"]


def _await(job: "subprocess.Popen[bytes]", run_dir: Path) -> None:
    """Waits for the first checkpoint."""
    until = time.monotonic() + 120
    while not list(run_dir.glob("checkpoints/step-*")):
        assert job.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    os.sched_yield()
