"""Trains a few updates of one batch size and evaluates: `python -m tfmb.advice.one_batch`, started by `memory`."""

import contextlib
import resource
import sys
from pathlib import Path
from typing import Any

from tfmb.advice.memory import NothingFitsError
from tfmb.environment import children
from tfmb.environment.console import start_tensorflow
from tfmb.jobs.config import ProblemConfig

_UPDATES = 2
_RATE = 1e-6


def main() -> int:
    """Reads a problem's configuration and a batch size; prints the most memory that it took."""
    with contextlib.suppress(OSError):  # not on Linux
        # The kernel ends this process, and not its parent, if memory runs out all the same.
        Path("/proc/self/oom_score_adj").write_text("1000")
    return children.reply(_train)


def _train(told: dict[str, Any]) -> dict[str, int]:
    size = told.pop("batch_size")
    start_tensorflow()
    from tfmb.advice.jobs import problem_of
    from tfmb.advice.short_runs import ShortRuns
    from tfmb.advice.target import Target
    from tfmb.backend import tf

    try:
        problem, _ = problem_of(ProblemConfig(**told))
        never = Target(metric="val_loss", value=-1e300, rises=False)
        ShortRuns(problem).run(size, _RATE, never, most_updates=_UPDATES)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise NothingFitsError("out of memory") from error
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


if __name__ == "__main__":
    sys.exit(main())
