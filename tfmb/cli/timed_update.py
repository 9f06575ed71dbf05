"""A child of `threads`: reads a training's options on standard input, prints the seconds of an update."""

import sys
from typing import Any

from tfmb.environment import children
from tfmb.environment.console import start_tensorflow
from tfmb.jobs.config import TrainConfig

__all__ = ["main"]


def main() -> int:
    """Times an update with as many threads as the options say; returns the exit code."""
    return children.reply(_time)


def _time(options: dict[str, Any]) -> dict[str, float]:
    config = TrainConfig.from_dict(options, "standard input")
    start_tensorflow(config.threads)
    from tfmb.jobs.timing import time_update

    return {"seconds": time_update(config)}


if __name__ == "__main__":
    sys.exit(main())
