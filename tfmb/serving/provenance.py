"""The provenance of an export: `assets.extra/tfmb.json`, read and written by the schema beside this module."""

import datetime
import functools
import json
from pathlib import Path
from typing import Any

from tfmb.errors import ConfigError, DataError, first_line
from tfmb.storage.checksums import SUMS_FILE, check_sums, read_plain
from tfmb.storage.files import parse_json, plain_json
from tfmb.storage.folders import naming
from tfmb.storage.json_schema import check_schema

__all__ = ["EXTRAS", "KNOWN_TO_CALLERS", "check", "check_export", "is_signed", "make", "write"]

EXTRAS = "assets.extra"
PROVENANCE_FILE = f"{EXTRAS}/tfmb.json"
FORMAT = 1
# What the caller of `tfmb.export` may tell.
KNOWN_TO_CALLERS = ("batch_size", "learning_rate", "optimizer", "seed", "data", "metrics", "noise_scale")
_MOST_BYTES = 2**20


def make(told: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """A record in the schema's form.

    Args:
        told: the caller's facts on the training: entries of `KNOWN_TO_CALLERS`, and `run`; the rest is None.
        facts: the export's own facts, all of the other entries but `format` and `created`.

    Raises:
        ConfigError: an entry that there is not, or whose value makes no sense.
    """
    known = (*KNOWN_TO_CALLERS, "run")
    if unknown := [name for name in told if name not in known]:
        raise ConfigError(f"provenance has an unknown entry {unknown[0]!r}: give {', '.join(KNOWN_TO_CALLERS)}")
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    record = {"format": FORMAT, "created": now, **{name: plain_json(told.get(name)) for name in known}, **facts}
    try:
        check_schema(record, _schema(), "provenance")
        json.dumps(record, allow_nan=False)
    except (DataError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{error}: see docs/serving.md for what an export can tell") from error
    return record


def write(folder: Path, record: dict[str, Any]) -> None:
    """Writes a record that `make` gave into an export's folder.

    Raises:
        OSError: the disk is full or fails.
        ConfigError: it is larger than `check` would read.
    """
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    if len(text.encode()) > _MOST_BYTES:
        raise ConfigError(f"provenance is too large ({len(text)} characters): leave out what no reader needs")
    (folder / EXTRAS).mkdir(exist_ok=True)
    with naming(folder / PROVENANCE_FILE):
        (folder / PROVENANCE_FILE).write_text(text, encoding="utf-8")


def check(folder: Path) -> dict[str, Any]:
    """Reads an export's record: bounded in size, JSON without NaN, entry by entry as the schema says.

    Raises:
        DataError: it is missing, damaged or of another version.
    """
    path = folder / PROVENANCE_FILE
    try:
        record = parse_json(read_plain(path, _MOST_BYTES))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no JSON ({first_line(error)}): the export is damaged") from error
    if isinstance(record, dict) and isinstance(record.get("format"), int) and record["format"] > FORMAT:
        raise DataError(f"{path} is of format {record['format']}: read it with a newer tfmb")
    check_schema(record, _schema(), str(path))
    return dict(record)


def check_export(folder: Path) -> dict[str, Any]:
    """Compares every file of one version of an export with its checksums, and gives its provenance.

    It tells damage, not forgery: whoever can write the files can write their checksums too. Nothing is loaded or run.

    Args:
        folder: `NAME/<version>` as `tfmb export` wrote it.

    Returns:
        The content of `assets.extra/tfmb.json`; its form is that of tfmb's `export.schema.json`.

    Raises:
        DataError: a file is damaged, missing or more, or the record is not as its schema says.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise DataError(f"{folder} is no folder of an export: give NAME/<version> as `tfmb export` wrote it")
    if not is_signed(folder):
        raise DataError(f"{folder} has no {SUMS_FILE}: tfmb did not write it, or it is damaged")
    check_sums(folder)
    return check(folder)


def is_signed(folder: Path) -> bool:
    """Whether an export has checksums, or must have: one of ours without them is damaged."""
    return any((folder / name).exists() or (folder / name).is_symlink() for name in (SUMS_FILE, PROVENANCE_FILE))


@functools.cache
def _schema() -> dict[str, Any]:
    return dict(json.loads(Path(__file__).with_name("export.schema.json").read_text()))
