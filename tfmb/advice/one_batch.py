"""Trains a few updates of one batch size and evaluates: `python -m tfmb.advice.one_batch`, started by `memory`."""

import json
import resource
import sys

_UPDATES = 2
_RATE = 1e-6


def main() -> int:
    """Reads a problem's configuration and a batch size; prints the most memory that it took."""
    told = json.loads(sys.stdin.read())
    size = told.pop("batch_size")
    from tfmb.environment.console import start_tensorflow
    from tfmb.errors import TfmbError
    from tfmb.jobs.config import ProblemConfig

    start_tensorflow()
    from tfmb.advice.jobs import problem_of
    from tfmb.advice.short_runs import ShortRuns
    from tfmb.advice.target import Target
    from tfmb.backend import tf

    try:
        problem, _ = problem_of(ProblemConfig(**told))
        never = Target(metric="val_loss", value=-1e300, rises=False)
        ShortRuns(problem).run(size, _RATE, never, most_updates=_UPDATES)
    except TfmbError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except (MemoryError, tf.errors.ResourceExhaustedError):
        print("out of memory", file=sys.stderr)
        return 4
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
