"""Verifies a run (`tfmb verify RUN`): its model, data, optimizer and seed, over a few updates.

A model that was not trained yet is verified in the same way (`tfmb verify module:build --quick`), for a user's
continuous integration.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfmb.errors import DataError
from tfmb.runs.run_dir import load_weights
from tfmb.runs.run_record import read_run
from tfmb.verification import child, resume
from tfmb.verification.checks import Check, Report, failed, not_applicable, passed
from tfmb.verification.invariance import BITS, TOLERANCE
from tfmb.verification.parity import check_parity
from tfmb.verification.subject import QUICK_STEPS, Subject, read_subject, subject_of_model

__all__ = ["verify_model", "verify_run"]

_WEIGHTS = "weights on disk"


def verify_run(
    run_dir: str | Path, model: str | None = None, data: str | None = None, mirror: str | None = None, steps: int = 8
) -> Report:
    """Trains a few updates of a run again, in several ways that must agree.

    Args:
        run_dir: made by `tfmb train` or `tfmb.fit`; nothing in it is written.
        model: `module:build` where the model is the user's own: no code is loaded from a run.
        data: `module:load` where the data is the user's own.
        mirror: a folder with the files that TFDS would download.
        steps: about how many updates, from 2 to 1000.

    Returns:
        The report: weights on disk, parity with `model.fit`, replica invariance (two contracts), resume exactness.

    Raises:
        ConfigError: the user's own model or data was not named.
        DataError: no run, a damaged record, or other data.
    """
    subject = read_subject(run_dir, model, data, mirror, steps)
    checks = [_check_weights(Path(run_dir)), check_parity(subject)]
    told = {"run_dir": str(Path(run_dir)), "model": model, "data": data, "mirror": mirror, "steps": steps}
    checks += _checks_in_processes(subject, told)
    return Report(target=str(run_dir), checks=tuple(checks))


def verify_model(model: str, data: str | None = None) -> Report:
    """Trains a few updates of a model in several ways that must agree.

    Args:
        model: `module:build`, which returns a compiled Keras model.
        data: `module:load`, or the name of a dataset; None for made-up rows.

    Returns:
        The report: parity with `model.fit`, replica invariance, resume exactness.

    Raises:
        ConfigError: the model is not compiled, or does not say what rows it takes.
    """
    subject = subject_of_model(model, data)
    checks = [check_parity(subject)]
    told = {"run_dir": None, "model": model, "data": data, "mirror": None, "steps": QUICK_STEPS}
    checks += _checks_in_processes(subject, told)
    return Report(target=model, checks=tuple(checks))


def _check_weights(run_dir: Path) -> Check:
    record = read_run(run_dir)
    if record.get("status") != "finished":
        return not_applicable(_WEIGHTS, f"the run is {record.get('status')}, not finished")
    try:
        weights = load_weights(run_dir, str(record.get("weights_sha256")))
    except DataError as error:
        return failed(_WEIGHTS, str(error))
    return passed(_WEIGHTS, f"{len(weights)} arrays have the SHA-256 in the record")


def _checks_in_processes(subject: Subject, about: dict[str, Any]) -> list[Check]:
    """Makes the checks that need processes of their own; if a process dies, its checks are failed."""
    with tempfile.TemporaryDirectory(prefix="tfmb-verify-") as folder:
        told = child.Told(**about, folder=folder, part="first")
        try:
            checks = [Check(**{**found, "diagnosis": tuple(found["diagnosis"])}) for found in child.ask(told)]
        except RuntimeError as error:
            names = (BITS, *([] if told.run_dir is None else [TOLERANCE]), resume.NAME)
            return [failed(name, str(error)) for name in names]
        try:
            child.ask(replace(told, part="second"))
        except RuntimeError as error:
            return [*checks, failed(resume.NAME, str(error))]
        return [*checks, resume.check_resume(subject, Path(folder))]
