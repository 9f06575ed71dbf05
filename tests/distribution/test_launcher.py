"""`tfmb launch`: output by rank, TF_CONFIG, exit codes and signals, with tiny programs."""

import gc
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from worker_runs import SOON, TRAIN, children, is_alive, status, wait_for_updates

from tfmb.distribution.launcher import Gang, free_ports, launch
from tfmb.errors import ConfigError

LAUNCHER = """
import sys
import tfmb.distribution.launcher
# No worker here takes as long as TensorFlow's.
waits = {"notice_seconds": 3.0, "grace_seconds": 3.0}
code = tfmb.distribution.launcher.launch([sys.executable, "-c", sys.argv[2]], workers=int(sys.argv[1]), **waits)
assert "tensorflow" not in sys.modules
sys.exit(code)
"""
RANK = "import json, os, signal, sys, time; rank = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"


def started(program: str, workers: int = 2) -> subprocess.Popen[str]:
    """A launcher of its own process, whose workers run a program that knows its `rank`."""
    command = [sys.executable, "-c", LAUNCHER, str(workers), RANK + program]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(program: str, workers: int = 2) -> tuple[int, str, str, float]:
    """(exit code, standard output, standard error, seconds) of a launcher."""
    begin = time.monotonic()
    process = started(program, workers)
    try:
        out, err = process.communicate(timeout=40)
    finally:
        process.kill()
    return process.returncode, out, err, time.monotonic() - begin


@pytest.mark.process
def test_output_comes_with_the_rank_in_front() -> None:
    code, out, err, _ = ended("print('one'); print('two', end=''); print('rank', rank, file=sys.stderr)", 3)
    assert code == 0
    lines = out.splitlines()
    assert sorted(lines) == sorted(f"[{rank}] {word}" for rank in range(3) for word in ("one", "two"))
    for rank in range(3):
        assert [line for line in lines if line.startswith(f"[{rank}]")] == [f"[{rank}] one", f"[{rank}] two"]
    assert sorted(err.splitlines()) == [f"[{rank}] rank {rank}" for rank in range(3)]


@pytest.mark.process
def test_line_arrives_before_the_worker_ends() -> None:
    process = started("print('here'); time.sleep(60)", 1)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "[0] here\n"
        assert process.poll() is None
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.process
def test_tf_config_names_every_worker_and_its_own_rank() -> None:
    code, out, _, _ = ended("print(os.environ['TF_CONFIG'])", 3)
    assert code == 0
    found = {int(line[1]): json.loads(line[4:]) for line in out.splitlines()}
    assert sorted(found) == [0, 1, 2]
    hosts = found[0]["cluster"]["worker"]
    assert len(set(hosts)) == 3
    assert all(host.startswith("127.0.0.1:") for host in hosts)
    for rank, config in found.items():
        assert config == {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": rank}}


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_of_several_hosts_only_this_ones_worker_is_started(capfd: pytest.CaptureFixture[str]) -> None:
    hosts = ["10.0.0.1:2000", "10.0.0.2:2001"]
    program = [sys.executable, "-c", "import os; print(os.environ['TF_CONFIG'])"]
    assert launch(program, hosts=hosts, index=1) == 0
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    assert out.startswith("[1] ")
    assert json.loads(out[4:]) == {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": 1}}


@pytest.mark.process
def test_first_failing_workers_code_is_returned_and_the_others_get_a_moment_to_end() -> None:
    # Worker 0 ends by itself with another code a moment later: the first one counts.
    code, _, err, seconds = ended("time.sleep(0 if rank == 1 else 2); sys.exit(3 if rank == 1 else 4)", 2)
    assert code == 3
    assert "worker 1 ended with exit code 3" in err
    assert seconds < 10


@pytest.mark.process
def test_others_are_ended_soon_after_one_failed() -> None:
    code, out, err, seconds = ended("print(os.getpid()); sys.exit(5) if rank == 1 else time.sleep(100)", 2)
    assert code == 5
    assert "worker 1 ended with exit code 5" in err
    assert seconds < 20
    pids = [int(line.split()[1]) for line in out.splitlines()]
    assert len(pids) == 2
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_worker_killed_by_a_signal_gives_128_and_its_number(number: signal.Signals) -> None:
    code, _, err, _ = ended(f"os.kill(os.getpid(), {int(number)}) if rank == 0 else time.sleep(1)", 2)
    assert code == 128 + number
    assert number.name in err


@pytest.mark.process
def test_worker_that_failed_is_to_blame_and_not_one_that_lost_it() -> None:
    # The survivor is the first to end.
    code, _, err, _ = ended("sys.exit(69) if rank == 0 else (time.sleep(1), os.kill(os.getpid(), 9))", 2)
    assert code == 128 + signal.SIGKILL
    assert "worker 0 ended with exit code 69 (it lost a peer)" in err
    assert "worker 1 ended with signal SIGKILL" in err


@pytest.mark.process
def test_69_where_a_worker_hangs() -> None:
    program = "signal.signal(15, signal.SIG_IGN)\nsys.exit(69) if rank == 0 else time.sleep(100)"
    code, _, err, seconds = ended(program, 2)
    assert code == 69
    assert "worker 1 did not end: killed" in err
    assert seconds < SOON


@pytest.mark.slow
def test_killed_worker_of_a_training_ends_the_other_with_its_name(tmp_path: Path) -> None:
    lost, run = random.randrange(2), tmp_path / "run"
    command = [sys.executable, "-m", "tfmb", "launch", "--workers", "2", "--", *TRAIN, "--run-dir", str(run)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with (tmp_path / "errors").open("w") as errors:
        launcher = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        wait_for_updates(run, [launcher])
        workers = children(launcher.pid)
        begin = time.monotonic()
        os.kill(workers[lost], signal.SIGKILL)
        code = launcher.wait(timeout=2 * SOON)
        assert time.monotonic() - begin < SOON
    finally:
        launcher.terminate()
        launcher.wait()
    err = (tmp_path / "errors").read_text()
    assert code == 128 + signal.SIGKILL
    assert f"tfmb: worker {lost} ended with signal SIGKILL" in err
    survivor = rf"^\[{1 - lost}\] tfmb: error\[69\]: lost worker {lost} \(127.0.0.1:\d+\) \("
    assert re.search(survivor, err, re.MULTILINE), err
    assert "Traceback" not in err
    assert not any(is_alive(-pid) for pid in workers)
    assert status(run) == ("failed" if lost == 1 else "running")


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_passed_on_and_the_launcher_ends(number: signal.Signals) -> None:
    handler = "def end(*_):\n print('told'); sys.exit(7)\n"
    handler += f"signal.signal({int(number)}, end); print('ready', os.getpid()); time.sleep(100)"
    process = started(handler)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        begin = time.monotonic()
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 7
    assert sorted(out.splitlines()) == ["[0] told", "[1] told"]
    assert time.monotonic() - begin < 8
    assert not any(is_alive(int(line.split()[2])) for line in lines)


@pytest.mark.process
def test_worker_that_ignores_sigterm_is_ended_by_force() -> None:
    process = started("signal.signal(15, signal.SIG_IGN); print('ready', os.getpid()); time.sleep(100)", 1)
    try:
        assert process.stdout is not None
        pid = int(process.stdout.readline().split()[2])
        process.terminate()
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGKILL
    assert not is_alive(pid)


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert launch([sys.executable, "-c", ""], workers=1) == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.process
def test_pipes_of_the_workers_are_closed() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert launch([sys.executable, "-c", ""], workers=1) == 0
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


HOSTS = ["a:1", "b:2"]


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        ([], {"workers": 2}, "no command"),
        (["true"], {}, "either --workers"),
        (["true"], {"workers": 2, "hosts": HOSTS}, "either --workers"),
        (["true"], {"workers": 0}, "at least 1"),
        (["true"], {"workers": 2, "index": 0}, "--index"),
        (["true"], {"hosts": HOSTS}, "--index None"),
        (["true"], {"hosts": HOSTS, "index": 2}, "from 0 to 1"),
        (["true"], {"hosts": HOSTS, "index": -1}, "from 0 to 1"),
        (["true"], {"hosts": ["a:1", "a:1"], "index": 0}, "twice"),
        *[(["true"], {"hosts": ["a:1", bad], "index": 0}, "ADDRESS:PORT") for bad in ("b", "b:", ":2", "b:0", "b:x")],
        (["true"], {"hosts": ["a:1", "b:65536"], "index": 0}, "ADDRESS:PORT"),
        (["no-such-program-here"], {"workers": 1}, "cannot be started"),
    ],
)
def test_refused_in_one_line(command: Sequence[str], arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        launch(command, **arguments)
    assert "\n" not in str(caught.value)


def test_every_worker_has_its_device_where_there_are_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    gang = Gang(command=["true"], hosts=HOSTS, ranks=[0, 1], devices={0: "4", 1: "6"})
    assert [gang.environment(rank)["CUDA_VISIBLE_DEVICES"] for rank in (0, 1)] == ["4", "6"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "CUDA_VISIBLE_DEVICES" not in Gang(command=["true"], hosts=HOSTS, ranks=[0]).environment(0)


def test_free_ports_differ() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8
    assert all(0 < port < 65536 for port in ports)


@pytest.mark.process
def test_gang_that_died_is_started_again_and_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    program = (
        "import os, signal, sys, pathlib; n = int(os.environ['TFMB_RESTARTS']); print('start', n);"
        "os.kill(os.getpid(), signal.SIGKILL) if n < 2 else sys.exit(0)"
    )
    assert launch([sys.executable, "-c", program], workers=1, restarts=2) == 0
    assert "starting again in 1 s (1 of 2)" in (said := capfd.readouterr().err)
    assert "starting again in 2 s (2 of 2)" in said
    assert launch([sys.executable, "-c", program], workers=1, restarts=0) == 137


@pytest.mark.process
def test_end_that_would_come_again_is_not_tried_again(capfd: pytest.CaptureFixture[str]) -> None:
    assert launch([sys.executable, "-c", "raise SystemExit(65)"], workers=1, restarts=5) == 65
    assert "starting again" not in capfd.readouterr().err


def test_restarts_below_zero_are_refused() -> None:
    with pytest.raises(ConfigError, match="--restarts -1 must be at least 0"):
        launch(["true"], workers=1, restarts=-1)
