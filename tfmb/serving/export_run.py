"""Exports a finished run's model, with all facts on its training in `run.json` and `metrics.jsonl`."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.backend import keras as keras_module
from tfmb.errors import ConfigError, DataError
from tfmb.jobs.restore import RestoredRun
from tfmb.runs.raw_weights import remember
from tfmb.runs.run_dir import RAW_WEIGHTS_FILE, load_weights
from tfmb.serving.export import Export, Options, write_export
from tfmb.serving.weights import KINDS
from tfmb.storage.files import open_plain, parse_json

__all__ = ["export_run", "provenance_of_run", "rows_to_compare"]

_METRICS_FILE = "metrics.jsonl"
_MOST_LINE_BYTES = 2**16
_ROWS_COMPARED = 1000


def export_run(run: RestoredRun, filepath: str | Path, options: Options | None = None) -> Export:
    """Writes the next version of a run's model.

    Args:
        run: finished.
        filepath: the model's folder.
        options: the options of the export; `logits` is the run's own.

    Raises:
        ConfigError: an option that does not suit the run.
        DirectoryError: the folder cannot be made or written.
        DataError: the run's files are damaged, or the SavedModel does not give what the model gives.
    """
    options = replace(options or Options(), logits=run.logits)
    _keep_raw_weights(run, options.weights)
    made = write_export(run.model, filepath, provenance_of_run(run), options)
    if made is None:
        raise ConfigError(f"{run.run_dir}: only the first of several workers exports: unset TF_CONFIG")
    return made


def rows_to_compare(run: RestoredRun, data: str | None = None, mirror: str | None = None) -> Any:
    """Returns the first rows of the run's test split, to compare versions on; None if it has none.

    Raises:
        ConfigError: the data is the user's own and was not named.
        DataError: it is missing or not that of the run.
    """
    test = run.splits(data, mirror).test
    if test is None:
        return None
    return keras_module.tree.map_structure(lambda leaf: np.asarray(leaf[:_ROWS_COMPARED]), test.examples)


def provenance_of_run(run: RestoredRun) -> dict[str, Any]:
    """Returns the entries of an export's provenance that a run's files hold: see `provenance.make`."""
    record = run.record
    config, result = _table(record.get("config")), _table(record.get("result"))
    data = _table(record.get("data"))
    last = _last_line(run.run_dir / _METRICS_FILE)
    optimizer = {key: value for key, value in _table(record.get("optimizer")).items() if key != "name"}
    batch_size = data.get("train_examples") if config.get("batch_size") == "full" else config.get("batch_size")
    epochs = config.get("epochs")
    return {
        "batch_size": batch_size,
        "learning_rate": optimizer.get("learning_rate"),
        "optimizer": optimizer or None,
        "seed": config.get("seed"),
        "data": {"fingerprint": None, **_short_values(data)} if data else None,
        "metrics": _metrics(result) or _metrics(last) or None,
        "noise_scale": _noise_scale(result) or _noise_scale(last),
        "run": {
            "name": run.name,
            "updates": result.get("updates", last.get("update")),
            "epochs": epochs,
            "virtual_replicas": record.get("virtual_replicas", config.get("virtual_replicas")),
            "versions": record.get("versions"),
        },
    }


def _keep_raw_weights(run: RestoredRun, weights: str | None) -> None:
    checksum = run.record.get("raw_weights_sha256")
    if checksum is None:
        if weights in KINDS:
            raise ConfigError(f"--weights {weights}: {run.run_dir} keeps no averages of its weights: leave it out")
        return
    raw = load_weights(run.run_dir, str(checksum), RAW_WEIGHTS_FILE)
    if [w.shape for w in raw] != [tuple(v.shape) for v in run.model.trainable_variables]:
        raise DataError(f"{run.run_dir / RAW_WEIGHTS_FILE} does not fit the model: the run is damaged")
    remember(run.model, raw)


def _last_line(path: Path) -> dict[str, Any]:
    """Returns the last whole line of a log, however long the log is; empty if there is none."""
    try:
        with open_plain(path) as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - _MOST_LINE_BYTES))
            lines = file.read(_MOST_LINE_BYTES).splitlines()
        return _table(parse_json(lines[-1], finite=False)) if lines else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)[:150]
        raise DataError(f"{path} cannot be read ({reason}): the run is damaged") from error


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _short_values(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if isinstance(value, (str, int)) and not isinstance(value, bool)}


def _metrics(table: dict[str, Any]) -> dict[str, float]:
    """Losses and metrics, by the way they are named: not times, nor counts."""
    return {
        key: float(value)
        for key, value in table.items()
        if isinstance(value, float) and not key.endswith(("seconds", "_per_second", "learning_rate", "noise_scale"))
    }


def _noise_scale(table: dict[str, Any]) -> float | None:
    value = table.get("noise_scale")
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)
