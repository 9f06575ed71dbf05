"""The part of a verification in a process of its own.

Two replicas must be made before TensorFlow starts, and a run that goes on must do so where nothing is left of it.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfmb.environment import children

__all__ = ["Told", "ask"]


@dataclass(frozen=True, kw_only=True)
class Told:
    """The message to a child.

    Attributes:
        run_dir: the run; None to verify `model` itself.
        model: the user's `module:build`, or None.
        data: the user's `module:load`, or None.
        mirror: a folder with the files that TFDS would download, or None.
        steps: the approximate number of updates.
        folder: the folder that it writes to.
        part: `"first"` for the replicas, and a run that is stopped; `"second"` to go on with that.
    """

    run_dir: str | None
    model: str | None
    data: str | None
    mirror: str | None
    steps: int
    folder: str
    part: str


def ask(told: Told) -> list[dict[str, Any]]:
    """Has a child do its part; returns its checks, as dicts.

    Raises:
        RuntimeError: it ended otherwise; its last words, in one line.
    """
    ended = children.ask(_do, {**asdict(told), "path": sys.path})
    if ended.code:
        raise RuntimeError(f"a process of its own ended with {ended.code} ({ended.last_words})")
    checks: list[dict[str, Any]] = ended.answer()
    return checks


def _do(message: dict[str, Any]) -> list[dict[str, Any]]:
    sys.path[:] = message.pop("path")  # where the caller found the user's modules
    told = Told(**message)
    from tfmb.distribution.strategy import configure_replicas
    from tfmb.verification import invariance, resume
    from tfmb.verification.subject import read_subject, subject_of_model

    configure_replicas(invariance.REPLICAS)
    if told.run_dir is None:
        subject = subject_of_model(str(told.model), told.data)
    else:
        subject = read_subject(told.run_dir, told.model, told.data, told.mirror, told.steps)
    if told.part == "second":
        resume.train_on(subject, Path(told.folder))
        return []
    # First: cutting batches into virtual replicas turns TensorFloat-32 off for a process, which a run's record keeps.
    resume.train_and_stop(subject, Path(told.folder))
    checks = [invariance.check_bits] if told.run_dir is None else [invariance.check_bits, invariance.check_tolerance]
    return [asdict(check(subject)) for check in checks]
