"""Several worker processes: the same bits as one; and a worker that is lost, or never comes, is named."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_runs import Workers, error_line, status

from benchmarks.bits import digest, worker_digests
from tfmb.backend import tf
from tfmb.cli import main
from tfmb.distribution.launcher import Gang, free_ports
from tfmb.distribution.multi_worker import naming_lost_peers
from tfmb.errors import PeerLostError

SHORT = ["train", "--dataset", "digits", "--model", "mlp", "--epochs", "2", "--virtual-replicas", "2", "--json"]


@pytest.mark.process
@pytest.mark.sample
def test_two_workers_end_with_the_weights_of_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    this = [sys.executable, "-m", "tfmb"]
    command = [*this, "launch", "--workers", "2", "--", *this, *SHORT]  # the strategy is TF_CONFIG's
    done = subprocess.run(
        [*command, "--run-dir", str(tmp_path / "two")], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()  # the chief speaks for both
    two = json.loads(line.removeprefix("[0] "))
    assert main([*SHORT, "--run-dir", str(tmp_path / "one")]) == 0
    one = json.loads(capsys.readouterr().out)
    assert two["weights_sha256"] == one["weights_sha256"]
    assert two["updates"] == one["updates"] == 46


@pytest.mark.process
def test_a_cluster_of_one_worker_ends_with_the_same_bits() -> None:
    name = "table-sgd-clipped"
    assert worker_digests(name, 0, 30, "digits", workers=1) == digest(name, 0, 30, devices=1)


@pytest.mark.process
def test_survivor_names_the_worker_that_was_killed(tmp_path: Path) -> None:
    lost = random.randrange(2)
    with Workers(tmp_path) as workers:
        workers.lose(lost, signal.SIGKILL)
        code, stderr = workers.end_of(1 - lost)
        line = error_line(stderr)
        assert code == 69, line
        assert line.startswith(f"tfmb: error[69]: lost {workers.name(lost)} ("), line
        assert "start all workers again" in line
    if lost == 1:
        assert f"--resume {tmp_path / 'run'}" in line
        assert status(tmp_path / "run") == "failed"


@pytest.mark.parametrize("rank", [0, 1])
def test_worker_that_never_joins_is_named_in_time(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TFMB_JOIN_SECONDS", "1")
    monkeypatch.setattr(
        "tfmb.distribution.multi_worker._tensorflow_has_started", lambda: False
    )  # a worker's own process is new
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    monkeypatch.setenv("TF_CONFIG", Gang(command=[], hosts=hosts, ranks=[rank]).environment(rank)["TF_CONFIG"])
    begin = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        main([*SHORT, "--strategy", "multi-worker", "--run-dir", str(tmp_path / "run")])
    assert caught.value.code == 69
    assert time.monotonic() - begin < 10
    missing = f"worker {1 - rank} ({hosts[1 - rank]})"
    assert error_line(capfd.readouterr().err).startswith(f"tfmb: error[69]: {missing} did not join within 1 s")
    assert not (tmp_path / "run").exists()


CHIEF, FIRST, SECOND = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"  # nobody listens there
SPEC = {"chief": [CHIEF], "worker": [FIRST, SECOND]}
HANGS = """Graph execution error:

Detected at node while/CollectiveReduceV2 defined at (most recent call last):
Collective ops is aborted by: Error reported from /job:worker/task:1: The following tasks are unhealthy (stopped sending
heartbeats):
/job:worker/replica:0/task:1
The error could be from a previous operation. Restart your program to reset."""
PASSED_ON = """Collective ops is aborted by: Collective ops is aborted by: recvmsg:Connection reset by peer
Additional GRPC error information from remote target /job:worker/replica:0/task:1 while calling x"""
LEADER_HANGS = "Collective ops is aborted by: Deadline Exceeded\n\nRPC: /tensorflow.CoordinationService/Heartbeat"

BARRIER = """Barrier failed because: task is set to ERROR: UNAVAILABLE: Task /job:worker/task:0 heartbeat timeout.
[type.googleapis.com/tensorflow.CoordinationServiceError=''] while calling /tensorflow.CoordinationService/WaitForAll"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A strategy of a cluster, as far as it is asked here: the real one would wait for the others."""

    class Strategy(tf.distribute.MultiWorkerMirroredStrategy):
        def __init__(self) -> None:
            self._resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
                tf.train.ClusterSpec(SPEC), task_type="worker", task_id=0
            )

        @property
        def cluster_resolver(self) -> Any:
            return self._resolver

    return Strategy()


def raised(strategy: Any, error: Exception) -> str:
    with pytest.raises(PeerLostError) as caught, naming_lost_peers(strategy, ", with advice"):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


def test_tensorflows_word_on_who_hangs_counts(cluster: Any) -> None:
    message = raised(cluster, tf.errors.UnavailableError(None, None, HANGS))
    assert message == f"lost worker 1 ({SECOND}) (no heartbeat): start all workers again, with advice"
    message = raised(cluster, tf.errors.DeadlineExceededError(None, None, LEADER_HANGS))
    assert message.startswith(f"lost chief 0 ({CHIEF}) (no heartbeat)")


def test_barrier_that_fails_while_workers_start_is_a_lost_worker(cluster: Any) -> None:
    message = raised(cluster, tf.errors.InternalError(None, None, BARRIER))
    assert message.startswith(f"lost chief 0 ({CHIEF}) (no heartbeat)")


def test_otherwise_those_on_whose_port_nobody_listens_are_named(cluster: Any) -> None:
    message = raised(cluster, tf.errors.UnavailableError(None, None, PASSED_ON))
    assert message.startswith(f"lost chief 0 ({CHIEF}), worker 1 ({SECOND}) (recvmsg:Connection reset by peer):")


@pytest.mark.parametrize(
    ("text", "who"), [(PASSED_ON, "lost worker 1 ("), ("Collective is gone", "lost one of chief 0")]
)
def test_where_all_listen_the_one_that_did_not_answer_is_named(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, text: str, who: str
) -> None:
    monkeypatch.setattr("tfmb.distribution.rendezvous.Cluster.unreachable", lambda self: [])
    assert raised(cluster, tf.errors.AbortedError(None, None, text)).startswith(who)


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.UnavailableError(None, None, "Error executing an HTTP request: a bucket of the user's"),
        tf.errors.InvalidArgumentError(None, None, "/job:worker/replica:0/task:1/device:CPU:0 has the wrong shape"),
        ValueError("anything else"),
    ],
)
def test_other_errors_pass(cluster: Any, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, naming_lost_peers(cluster):
        raise error
    assert caught.value is error


def test_one_process_has_no_peers(two_replicas: Any) -> None:
    with pytest.raises(tf.errors.UnavailableError), naming_lost_peers(two_replicas):
        raise tf.errors.UnavailableError(None, None, HANGS)
