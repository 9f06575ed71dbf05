"""`tfmb list`: lists runs and compares them."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmb.choices import MODEL_NAMES
from tfmb.cli.train import RUNS
from tfmb.environment.console import emit_json, say, tell, tell_table
from tfmb.errors import DataError

__all__ = ["list_runs", "newest_run"]

_COLUMNS = [
    *("run", "status", "dataset", "model", "optimizer", "rate", "batch", "epochs", "seed"),
    *("test acc", "ex/s", "s"),
]


def list_runs(
    directories: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or folders that hold runs. Default: runs.", metavar="[RUN]...")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for each run on standard output.")
    ] = False,
) -> None:
    """List runs, and the options in which they differ."""
    found = _find(directories or [RUNS])
    records = [(path, _read(path)) for path in found]
    if json:
        for path, record in records:
            emit_json({**_row(path, record), "config": record.get("config")})
        return
    if not records:
        say(f"no runs in {', '.join(map(str, directories or [RUNS]))}")
        return
    rows = [[_text(value) for value in _row(path, record).values()] for path, record in records]
    tell_table([_COLUMNS, *rows])
    differing = _differences([record.get("config") or {} for _, record in records])
    if differing and len(records) > 1:
        tell("options that differ: " + ", ".join(differing))


def newest_run(named_model: bool) -> Path:
    """The finished run under `runs/` that was written last.

    Args:
        named_model: whether the user names the run's model; without it only runs of our models count.

    Raises:
        DataError: there is none.
    """
    records = [(path, _read(path)) for path in _find([RUNS])]
    finished = [
        path for path, record in records if record.get("status") == "finished" and (named_model or _is_ours(record))
    ]
    if not finished:
        raise DataError(f"there is no finished run of `tfmb train` in {RUNS}/: train one, or name one with --run")
    return max(finished, key=lambda path: (path / "run.json").stat().st_mtime)


def _is_ours(record: dict[str, Any]) -> bool:
    """Whether the run can be restored without the name of its model."""
    config = record.get("config")
    return isinstance(config, dict) and config.get("model") in MODEL_NAMES


def _find(directories: list[Path]) -> list[Path]:
    found: list[Path] = []
    for directory in directories:
        if os.path.lexists(directory / "run.json"):  # what it is, and whether it can be read, is told later
            found.append(directory)
        elif directory.is_dir():
            found += sorted(path.parent for path in directory.glob("*/run.json"))
        elif directory != RUNS:
            raise DataError(f"{directory}: no such run: give a directory made by `tfmb train`")
    return found


def _read(path: Path) -> dict[str, Any]:
    from tfmb.runs.run_record import read_run

    try:
        return read_run(path)
    except DataError as error:
        say(f"warning: {error}")
        return {"status": "damaged"}


def _row(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    config, result = record.get("config") or {}, record.get("result") or {}
    optimizer, model = record.get("optimizer") or {}, record.get("model") or {}
    return {
        "run": str(path),
        "status": record.get("status"),
        "dataset": (record.get("data") or {}).get("name"),
        "model": model.get("name"),
        "optimizer": optimizer.get("class"),
        "learning_rate": optimizer.get("learning_rate"),
        "batch_size": config.get("batch_size"),
        "epochs": config.get("epochs"),
        "seed": config.get("seed"),
        "test_accuracy": result.get("test_accuracy"),
        "examples_per_second": result.get("examples_per_second"),
        "seconds": result.get("seconds"),
    }


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):  # a schedule, which --json gives in full
        inner = value.get("schedule")
        name = value.get("class") or value.get("keras_class") or "schedule"
        return f"{name} {_text(inner if isinstance(inner, dict) else value.get('learning_rate'))}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def _differences(configs: list[dict[str, Any]]) -> list[str]:
    names = sorted({name for config in configs for name in config})
    return [name for name in names if len({repr(config.get(name)) for config in configs}) > 1]
