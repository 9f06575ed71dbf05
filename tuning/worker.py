"""A worker process of a search: `python -m tfmb.tuning.worker`, started by `crew` with one line of JSON to read.

It ends with 0 where no trial is left; with 69 where the chief is gone; and else with what the user's code raised, which
it tells the chief in a line of its own.
"""

import contextlib
import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

from tfmb.errors import DataError, PeerLostError, TfmbError

__all__ = ["main"]

_LOST = PeerLostError.exit_code
_MOST_WORDS = 2000


def main() -> int:
    """Reads what to do, and does it; returns the exit code."""
    channel = os.fdopen(os.dup(0), "rb")
    with open(os.devnull, "rb") as nothing:  # what the user's code reads is not ours
        os.dup2(nothing.fileno(), 0)
    line = channel.readline()
    if not line.endswith(b"\n"):
        return _LOST
    told = json.loads(line)
    threading.Thread(target=_end_with_chief, args=(channel, told["chief"]), daemon=True).start()
    sys.path[:] = told["path"]
    if told["cores"] and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a container may forbid it
            os.sched_setaffinity(0, told["cores"])
    try:
        _work(told)
    except PeerLostError as error:
        print(error, file=sys.stderr)
        return _LOST
    except BaseException as error:
        if not isinstance(error, TfmbError):
            traceback.print_exc()
        words = " ".join(str(error).split())[:_MOST_WORDS]
        report = {"kind": type(error).__name__, "message": words}
        os.write(told["report"], json.dumps(report).encode())
        return error.exit_code if isinstance(error, TfmbError) else 1
    return 0


def _work(told: dict[str, Any]) -> None:
    from tfmb.environment.console import show_warnings, start_tensorflow

    show_warnings()
    start_tensorflow(told["threads"])
    from . import wire
    from .client import RemoteOracle
    from .objective import Objective
    from .search import Tuner
    from .trial import Trainer

    address = wire.Address(target=told["chief"], worker=told["worker"], token=told["token"])
    oracle = RemoteOracle(address, _chief_is_gone)
    trainer = Trainer(_task(told["task"], Path(told["folder"])))
    objective, folder = Objective.parse(told["objective"]), Path(told["folder"]) / "trials"
    Tuner(oracle, trainer, told["slices"], objective, folder, told["worker"]).search()
    oracle.close()


def _task(told: dict[str, Any], folder: Path) -> Any:
    """The task of `{"arrays": what pack_task gave}`, or of `{"config": a TuneConfig, "fingerprint": of its data}`."""
    from .handover import from_json, unpack_task

    if "arrays" in told:
        return unpack_task(told["arrays"], folder)
    from .job import TuneConfig, task_of

    task, _ = task_of(from_json(TuneConfig, told["config"]))
    if task.train.fingerprint != told["fingerprint"]:
        raise DataError(
            "a worker loads other data than the search began with: make --dataset load the same data each time"
        )
    return task


def _end_with_chief(channel: Any, target: str) -> None:
    """Waits for the end of our standard input, which whoever started us holds open."""
    while os.read(channel.fileno(), 1):
        pass
    kind, _, path = target.partition(":")
    if kind == "unix":  # a chief that was killed left its socket behind; one that is merely silent still needs it
        with contextlib.suppress(OSError):  # another worker was faster
            os.unlink(path)
            os.rmdir(os.path.dirname(path))
    _chief_is_gone()


def _chief_is_gone() -> NoReturn:
    with contextlib.suppress(OSError):  # whoever read it is gone too
        os.write(2, b"the search's chief is gone\n")
    os._exit(_LOST)


if __name__ == "__main__":
    code = main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # threads of TensorFlow and gRPC may take long to end
