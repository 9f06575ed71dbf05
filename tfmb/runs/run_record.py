"""A run's record, `run.json`: written whole, sealed by a checksum, and read as its schema says.

A record decides answers: the numbers that pixels are normalised by, the data that a run is scored on, the run's
result. So it is believed only if it is as we wrote it. The user's additions belong under `notes`, which the
checksum leaves out and every later writing keeps.
"""

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tfmb.environment.old_names import with_new_names
from tfmb.errors import DataError
from tfmb.storage.files import plain_json, read_json
from tfmb.storage.folders import naming, sync
from tfmb.storage.json_schema import check_schema

__all__ = ["NOTES", "RUN_FILE", "TEMPORARY_RUN_FILE", "read_run", "seal", "write_run"]

RUN_FILE = "run.json"
TEMPORARY_RUN_FILE = f".{RUN_FILE}.tmp"
NOTES = "notes"
# 1, which did not say so, had no checksum.
FORMAT = 2
_CHECKSUM = "sha256"


def write_run(run_dir: Path, record: dict[str, Any]) -> None:
    """Writes `run.json` whole or not at all, sealed; numbers that are not finite become null.

    Args:
        run_dir: the run's directory, locked.
        record: JSON, and NumPy's numbers.

    Raises:
        OSError: it cannot be written.
        TypeError: something in the record is neither.
    """
    record = {**_notes(run_dir), **record}
    temporary = run_dir / TEMPORARY_RUN_FILE
    with naming(temporary), temporary.open("w", encoding="utf-8") as file:
        json.dump(seal(record), file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(run_dir / RUN_FILE)
    sync(run_dir)


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """Returns the record with its format and its checksum, ready to be written."""
    sealed = {**plain_json(record), "format": FORMAT}
    return {**sealed, _CHECKSUM: _checksum(sealed)}


def read_run(run_dir: str | Path) -> dict[str, Any]:
    """Reads a run's record.

    Raises:
        DataError: there is none, it is not as it was written, or another version of tfmb wrote it.
    """
    path = Path(run_dir) / RUN_FILE
    try:
        record = read_json(path, finite=False)  # format 1 had such numbers
    except FileNotFoundError as error:
        raise DataError(
            f"{run_dir} holds no run ({RUN_FILE} is missing): give a directory made by `tfmb train`"
        ) from error
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(f"{path} cannot be read ({reason}): the run is damaged") from error
    if not isinstance(record, dict):
        raise DataError(f"{path} is no run's record: the run is damaged")
    checksum, version = record.pop(_CHECKSUM, None), record.get("format", 1)
    if isinstance(version, int) and version > FORMAT:
        raise DataError(f"{path} is of format {version}: read it with a newer tfmb")
    if (checksum is not None or version != 1) and checksum != _checksum(record):
        raise DataError(
            f"{path} is not as it was written (SHA-256): the run is damaged, or was changed by hand; "
            f"what you add belongs under {NOTES!r}"
        )
    record.pop("format", None)
    try:
        check_schema(record, _schema(), str(path))
    except DataError as error:
        raise DataError(f"{error}: the run is damaged") from error
    record["config"] = with_new_names(record["config"])
    return record


def _checksum(record: dict[str, Any]) -> str:
    told = {key: value for key, value in record.items() if key not in (NOTES, _CHECKSUM)}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _notes(run_dir: Path) -> dict[str, Any]:
    """Returns the user's notes in the record that is there."""
    try:
        before = read_json(run_dir / RUN_FILE)
    except (OSError, ValueError):
        return {}
    return {NOTES: before[NOTES]} if isinstance(before, dict) and NOTES in before else {}


@functools.cache
def _schema() -> dict[str, Any]:
    return dict(json.loads(Path(__file__).with_name("run.schema.json").read_text()))
