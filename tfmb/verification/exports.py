"""`tfmb verify EXPORT`: a SavedModel in fresh processes, beside the run it was made of, and where it came from."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.errors import DataError
from tfmb.serving.provenance import check_export, is_signed
from tfmb.serving.versions import newest_version
from tfmb.storage.checksums import SUMS_FILE
from tfmb.types import KerasModel
from tfmb.verification.checks import FAILED, Check, Report, failed, not_applicable, passed

__all__ = ["check_provenance", "newest_version", "verify_export"]

PROVENANCE, REPRODUCIBLE, PARITY, BYTES = "provenance", "fresh processes", "parity with the run", "serve_bytes"
_TOLERANCE = 1e-6
Arrays = dict[str, np.ndarray]


def verify_export(folder: str | Path, run: str | Path | None = None, model: str | None = None) -> Report:
    """Compares an export with itself in two fresh processes, and with a run's model.

    A SavedModel is a program: it is loaded only where its files are those that were written, or others made it, which
    the report says; and never where its operations touch files or run Python.

    Args:
        folder: a version's folder, or the model's, whose newest version is taken.
        run: the run it was made of; None compares with none.
        model: `module:build` where the run's model is the user's own.

    Returns:
        The report: provenance, fresh processes, parity with the run, serve_bytes.

    Raises:
        ConfigError: the run's model is the user's own and was not named.
        DataError: no export, or no run.
    """
    version = newest_version(Path(folder))
    restored = None if run is None else _restored(run, model)
    provenance = check_provenance(version)
    if provenance.status == FAILED:
        reason = "it was not loaded: its provenance is wrong"
        rest = [not_applicable(name, reason) for name in (REPRODUCIBLE, PARITY, BYTES)]
        return Report(target=str(version), checks=(provenance, *rest))
    try:
        first, second = (_answers(version) for _ in range(2))
    except DataError as error:
        rest = [not_applicable(name, "it cannot be used") for name in (PARITY, BYTES)]
        return Report(target=str(version), checks=(provenance, failed(REPRODUCIBLE, str(error)), *rest))
    checks = [provenance, _check_reproducible(first, second), _check_parity(first, run, restored), _check_bytes(first)]
    return Report(target=str(version), checks=tuple(checks))


def check_provenance(version: Path) -> Check:
    """Whether the files are those that were written, and tell where they come from."""
    if not is_signed(version):
        return not_applicable(PROVENANCE, f"others made it: no {SUMS_FILE} tells whether it is whole")
    try:
        told = check_export(version)
    except DataError as error:
        return failed(PROVENANCE, str(error))
    return passed(PROVENANCE, f"its files are those of its {SUMS_FILE}; tfmb {told['versions']['tfmb']} made it")


def _answers(version: Path) -> dict[str, Arrays]:
    """Inputs and outputs by the name of their file, from a fresh process.

    Raises:
        DataError: the SavedModel cannot be used.
    """
    from tfmb.serving.allowed_ops import check_operations  # TensorFlow starts here
    from tfmb.serving.comparison import run_fresh

    check_operations(version)
    found: dict[str, Arrays] = {}
    with tempfile.TemporaryDirectory(prefix="tfmb-verify-") as scratch:
        ended = run_fresh(version, scratch)
        if ended.code:
            raise DataError(f"{version}: it cannot be used in a fresh process ({ended.last_words})")
        for path in sorted(Path(scratch).glob("*.npz")):
            with np.load(path, allow_pickle=False) as arrays:
                found[path.stem] = dict(arrays.items())
    return found


def _check_reproducible(first: dict[str, Arrays], second: dict[str, Arrays]) -> Check:
    outputs = first["outputs"]
    about = f"{', '.join(outputs)} of {len(next(iter(first['inputs'].values())))} rows in two processes"
    wild = [name for name, value in outputs.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if wild:
        return failed(REPRODUCIBLE, f"{about}: {wild[0]} is not finite")
    differing = [name for name, value in outputs.items() if value.tobytes() != second["outputs"][name].tobytes()]
    if differing:
        return failed(REPRODUCIBLE, f"{about}: {', '.join(differing)} differ")
    return passed(REPRODUCIBLE, f"{about}: finite, and all bits are equal")


def _restored(run: str | Path, model: str | None) -> Any:
    """A run's model."""
    from tfmb.jobs.restore import restore_run  # TensorFlow starts here

    return restore_run(run, model).model


def _check_parity(answers: dict[str, Arrays], run: str | Path | None, restored: Any) -> Check:
    if run is None:
        return not_applicable(PARITY, "no run was named: give it behind the export")
    try:
        expected = _outputs_of(restored, answers["inputs"], "logits" in answers["outputs"])
    except (KeyError, ValueError) as error:
        return failed(PARITY, f"the model of {run} does not take what the signature takes ({error})")
    if set(expected) != set(answers["outputs"]):
        names = f"the signature answers {', '.join(answers['outputs'])}, the model of {run} {', '.join(expected)}"
        return failed(PARITY, names)
    largest, name = max((_error(answers["outputs"][name], value), name) for name, value in expected.items())
    about = f"serving_default and the model of {run}: largest difference {largest:.1e}, in {name}"
    if largest <= _TOLERANCE:
        return passed(PARITY, f"{about}, within {_TOLERANCE:g}")
    return failed(PARITY, f"{about}, over {_TOLERANCE:g}")


def _outputs_of(model: KerasModel, inputs: Arrays, logits: bool) -> Arrays:
    """Returns a model's answers, by the names that its signature has."""
    from tfmb.serving.signatures import ServedModel

    answers = ServedModel(model, logits).signatures["serving_default"](**inputs)
    return {name: np.asarray(tensor) for name, tensor in answers.items()}


def _check_bytes(answers: dict[str, Arrays]) -> Check:
    if "bytes" not in answers:
        return not_applicable(BYTES, "the export has no such signature")
    error = max(_error(answers["bytes"][name], value) for name, value in answers["whole"].items())
    about = f"PNG files and their pixels: largest difference {error:.1e}"
    return passed(BYTES, about) if error <= _TOLERANCE else failed(BYTES, f"{about}, over {_TOLERANCE:g}")


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference, relative to the largest entry if that is beyond 1; infinite for other shapes."""
    if found.shape != expected.shape:
        return float("inf")
    if found.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(found, expected) else float("inf")
    a, b = found.astype(np.float64), expected.astype(np.float64)
    error = float(np.max(np.abs(a - b), initial=0.0)) / max(1.0, float(np.max(np.abs(b), initial=0.0)))
    return error if np.isfinite(error) else float("inf")
