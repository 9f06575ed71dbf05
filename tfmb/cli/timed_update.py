"""A child of `threads`: reads a training's options on standard input, prints the seconds of an update."""

import json
import sys

from tfmb.environment.console import emit_json, fail, start_tensorflow
from tfmb.errors import TfmbError
from tfmb.jobs.config import TrainConfig

__all__ = ["main"]


def main() -> None:
    """Times an update with as many threads as the options say."""
    try:
        config = TrainConfig.from_dict(json.load(sys.stdin), "standard input")
        start_tensorflow(config.threads)
        from tfmb.jobs.timing import time_update

        emit_json({"seconds": time_update(config)})
    except TfmbError as error:
        fail(error.exit_code, str(error))


if __name__ == "__main__":
    main()
