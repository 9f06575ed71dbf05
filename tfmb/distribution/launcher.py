"""Starts several workers of a training program, as torchrun does for PyTorch: `tfmb launch --workers N -- COMMAND`.

It needs no TensorFlow. Each worker gets `TF_CONFIG`; its output comes with its rank in front; when one dies the others
are ended; signals are passed on.
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tfmb.environment import children
from tfmb.errors import ConfigError

__all__ = ["RESTARTS", "Gang", "free_ports", "launch", "visible_gpus"]

_POLL_SECONDS = 0.05
_PEER_LOST = 69
_NOT_AGAIN = (2, 3, 65, 73, 74)
_MOST_WAIT_SECONDS = 30.0
# By which a worker knows that its gang was started before.
RESTARTS = "TFMB_RESTARTS"


@dataclass(frozen=True, kw_only=True)
class Gang:
    """The workers of one machine.

    Attributes:
        command: the program of each of them.
        hosts: `address:port` of every worker of the cluster, in the order of their ranks.
        ranks: those that this machine starts.
        devices: by rank, the value of `CUDA_VISIBLE_DEVICES`; none are set where it is empty.
        restarts: the number of times that the gang was started before; the workers find it in `TFMB_RESTARTS`.
    """

    command: Sequence[str]
    hosts: Sequence[str]
    ranks: Sequence[int]
    devices: dict[int, str] = field(default_factory=dict)
    restarts: int = 0

    def environment(self, rank: int) -> dict[str, str]:
        """A worker's environment: ours, with `TF_CONFIG` and its device."""
        config = {"cluster": {"worker": list(self.hosts)}, "task": {"type": "worker", "index": rank}}
        chosen = {"CUDA_VISIBLE_DEVICES": self.devices[rank]} if rank in self.devices else {}
        ours = {"TF_CONFIG": json.dumps(config), "PYTHONUNBUFFERED": "1", RESTARTS: str(self.restarts)}
        return {**os.environ, **ours, **chosen}


def launch(
    command: Sequence[str],
    *,
    workers: int | None = None,
    hosts: Sequence[str] | None = None,
    index: int | None = None,
    restarts: int = 0,
    notice_seconds: float = 10.0,
    grace_seconds: float = 10.0,
) -> int:
    """Runs a gang of workers to its end.

    A gang that died is started again, at most `restarts` times, after 1, 2, 4 ... 30 s: a program that goes on with its
    run then (`tfmb train --run-dir D` does, and `tfmb.fit(..., run_dir=D, resume=True)`) ends as if nothing had been.
    Ends that would come again are not tried again: a bad option, divergence, bad data, a directory in use, a full disk.

    Args:
        command: the program and its arguments.
        workers: the number of local workers; one GPU each if there are enough.
        hosts: `address:port` of every worker, for several machines; this one starts the worker number `index`.
        index: its rank.
        restarts: the most times that a gang that died is started again.
        notice_seconds: the time for the others to find out for themselves that a worker died. They are asked to
            end then.
        grace_seconds: the time for workers to end that were asked to. They are killed then.

    Returns:
        0 if every worker ended with 0; else the exit code of the first that failed by itself (128 + n for signal n),
        or 69 if all that failed did so because another one hangs or could not be reached.

    Raises:
        ConfigError: neither or both of `workers` and `hosts`, or a command that cannot be started.
    """
    if not command:
        raise ConfigError("there is no command: give it after --, such as `tfmb launch --workers 2 -- python train.py`")
    if (workers is None) == (hosts is None):
        raise ConfigError("give either --workers N, or --hosts A:PORT,B:PORT with --index I")
    if restarts < 0:
        raise ConfigError(f"--restarts {restarts} must be at least 0")
    if hosts is not None:
        ranks: Sequence[int] = [_checked_index(index, len(_checked(hosts)))]
    elif index is not None or workers is None or workers < 1:
        raise ConfigError("--workers must be at least 1, and --index belongs to --hosts")
    else:
        ranks = range(workers)
    for attempt in itertools.count():
        at = hosts or [f"127.0.0.1:{port}" for port in free_ports(len(ranks))]
        devices = _one_gpu_each(len(ranks)) if hosts is None else {}
        gang = Gang(command=command, hosts=at, ranks=ranks, devices=devices, restarts=attempt)
        code, told = _run(gang, notice_seconds, grace_seconds)
        if code in (0, *_NOT_AGAIN) or told or attempt == restarts:
            return code
        wait = min(2.0**attempt, _MOST_WAIT_SECONDS)
        print(f"tfmb: starting again in {wait:.0f} s ({attempt + 1} of {restarts})", file=sys.stderr, flush=True)
        time.sleep(wait)
    raise AssertionError("the attempts do not end")


def free_ports(count: int) -> list[int]:
    """Ports on the loopback interface that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _run(gang: Gang, notice_seconds: float, grace_seconds: float) -> tuple[int, bool]:
    """(exit code, whether a signal told us to end)."""
    processes: dict[int, subprocess.Popen[str]] = {}
    readers: list[threading.Thread] = []
    caught: list[int] = []

    def pass_on(number: int, _: Any) -> None:
        caught.append(number)
        for process in processes.values():
            children.send(process, number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for rank in gang.ranks:
            processes[rank] = _start(gang, rank)
            pipes = ((processes[rank].stdout, sys.stdout), (processes[rank].stderr, sys.stderr))
            readers += [children.copy_lines(pipe, to, f"[{rank}] ") for pipe, to in pipes if pipe is not None]
        code = _wait(processes, caught, notice_seconds, grace_seconds)
        for reader in readers:
            reader.join(timeout=grace_seconds)
        return code, bool(caught)
    finally:
        for process in processes.values():
            children.send(process, signal.SIGKILL)
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(gang: Gang, rank: int) -> subprocess.Popen[str]:
    try:
        return children.start(gang.command, gang.environment(rank))
    except OSError as error:
        raise ConfigError(f"{gang.command[0]} cannot be started ({error.strerror}): give a program") from error


def _wait(
    processes: dict[int, subprocess.Popen[str]], caught: list[int], notice_seconds: float, grace_seconds: float
) -> int:
    """Waits for all. When one fails, or a signal asks us to stop, the others get a moment and are ended then."""
    failed: dict[int, int] = {}  # rank -> exit code of those that ended by themselves, in order
    end_at = kill_at = float("inf")
    told = False
    while running := [rank for rank, process in processes.items() if process.poll() is None]:
        now = time.monotonic()
        if not (told or caught):
            _note_failures(processes, failed)
            end_at = min(end_at, now + notice_seconds) if failed else end_at
        elif kill_at == float("inf"):
            kill_at = now + (grace_seconds if caught else notice_seconds / 2)
        if now > end_at and not told:
            told = True
            for rank in running:
                children.send(processes[rank], signal.SIGTERM)
        if now > kill_at:
            kill_at = now + grace_seconds
            print(f"tfmb: worker {', '.join(map(str, running))} did not end: killed", file=sys.stderr, flush=True)
            for rank in running:
                children.send(processes[rank], signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    if not (told or caught):
        _note_failures(processes, failed)
    codes = list(failed.values()) or [process.returncode for process in processes.values() if process.returncode]
    # Who lost a peer is not the one to blame.
    first = next((code for code in codes if code != _PEER_LOST), codes[0] if codes else 0)
    return first if first >= 0 else 128 - first


def _note_failures(processes: dict[int, subprocess.Popen[str]], failed: dict[int, int]) -> None:
    """Adds the workers that failed since the last time, and says so of those that failed by themselves."""
    for rank, process in processes.items():
        if process.returncode and rank not in failed:
            if not failed or process.returncode != _PEER_LOST:
                what = f"tfmb: worker {rank} ended with {_describe(process.returncode)}"
                print(what + ("" if failed else ": ending the others"), file=sys.stderr, flush=True)
            failed[rank] = process.returncode


def _describe(code: int) -> str:
    return children.describe(code) + (" (it lost a peer)" if code == _PEER_LOST else "")


def _one_gpu_each(workers: int) -> dict[int, str]:
    """Returns one GPU for each rank; nothing if there are too few, and every worker then sees all of them."""
    gpus = visible_gpus()
    return {rank: gpus[rank] for rank in range(workers)} if len(gpus) >= workers else {}


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    try:
        listed = children.run(["nvidia-smi", "-L"], seconds=20)
    except OSError:
        return []
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listed.output.splitlines()))]


def _checked(hosts: Sequence[str]) -> Sequence[str]:
    for host in hosts:
        address, _, port = host.rpartition(":")
        if not address or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigError(f"--hosts {host!r} is not of the form ADDRESS:PORT")
    if len(set(hosts)) != len(hosts):
        raise ConfigError("--hosts names a worker twice")
    return hosts


def _checked_index(index: int | None, count: int) -> int:
    if index is None or not 0 <= index < count:
        raise ConfigError(f"--index {index} must be from 0 to {count - 1}, the place of this worker among --hosts")
    return index
