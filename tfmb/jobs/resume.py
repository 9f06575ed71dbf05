"""The options that `tfmb train --resume RUN` goes on with: the run's own, and those given besides."""

import dataclasses
from pathlib import Path
from typing import Any

from tfmb.errors import ConfigError, DataError
from tfmb.jobs.config import TrainConfig

__all__ = ["resumed"]


def resumed(run_dir: Path, given: dict[str, Any]) -> tuple[TrainConfig, dict[str, Any] | None]:
    """Returns the options of a run that goes on, and its result if it is finished.

    Args:
        run_dir: made by `tfmb train`.
        given: options on the command line; where they differ from the run's, the run refuses to go on by their name
            (but for where it runs and how often it saves).

    Raises:
        ConfigError: the run was made by `tfmb.fit`, or an option makes no sense.
        DataError: there is no run, or its record is damaged.
    """
    from tfmb.runs.run_record import read_run

    record = read_run(run_dir)
    if record.get("made_by") != "tfmb train":
        raise ConfigError(f"{run_dir} was not made by `tfmb train`: go on with tfmb.fit(..., run_dir=..., resume=True)")
    if any(isinstance(value, (dict, list)) for value in record["config"].values()):
        raise DataError(f"{run_dir}: the record's options are no numbers and words: the run is damaged")
    config = TrainConfig.from_dict(record["config"], str(run_dir))
    asked = dataclasses.replace(config, **given)
    if record.get("status") == "finished":
        changed = [f.name for f in dataclasses.fields(config) if getattr(asked, f.name) != getattr(config, f.name)]
        if changed:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
            raise ConfigError(f"{run_dir} is finished: {options} would change nothing; train a new run with it")
        result = record.get("result")
        if not isinstance(result, dict):
            raise DataError(f"{run_dir}: the record has no result: the run is damaged")
        return config, {**result, "run_dir": str(run_dir), "weights_sha256": record.get("weights_sha256")}
    return asked, None
