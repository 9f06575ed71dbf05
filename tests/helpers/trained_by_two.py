"""Two workers that train together, forked from a process that has TensorFlow loaded and has run none of it."""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tfmb.distribution.launcher import Gang, free_ports

__all__ = ["kill_after_checkpoint", "two_workers"]

_PR_SET_PDEATHSIG = 1


def two_workers(work: Callable[[int], None], run_dir: Path, killed_after: float | None = None) -> None:
    """Forks two workers with a `TF_CONFIG` each, and waits for both; ends as they ended.

    Args:
        work: gets the rank.
        run_dir: of their run.
        killed_after: seconds after the first checkpoint there when both are killed at once; None for never. Where that
            came before both had ended, this process is killed too.

    Raises:
        RuntimeError: one of them failed; it has said why on standard error.
    """
    gang = Gang(command=[], hosts=[f"127.0.0.1:{port}" for port in free_ports(2)], ranks=range(2))
    workers = [_fork(work, gang, rank) for rank in gang.ranks]
    if killed_after is not None:
        kill_after_checkpoint(run_dir, killed_after, workers)
    codes = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
    if codes == [-signal.SIGKILL] * 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if not set(codes) <= ({0} if killed_after is None else {0, -signal.SIGKILL}):
        raise RuntimeError(f"the workers ended with {codes}")


def kill_after_checkpoint(run_dir: Path, seconds: float, processes: Sequence[int]) -> None:
    """Waits for a run's first checkpoint and so many seconds more, and kills processes that are not waited for yet."""
    while not list((run_dir / "checkpoints").glob("step-*")):
        if all(_has_ended(process) for process in processes):
            return
        time.sleep(0.001)
    time.sleep(seconds)
    for process in processes:
        os.kill(process, signal.SIGKILL)


def _has_ended(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _fork(work: Callable[[int], None], gang: Gang, rank: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # the parent may be killed for its time
    code = 1
    try:
        os.environ.update(gang.environment(rank))
        work(rank)
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
