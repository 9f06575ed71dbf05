"""A run's record is believed where it is as it was written, and what it may say is known."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmb.errors import DataError
from tfmb.runs import run_record
from tfmb.runs.run_record import read_run, seal, write_run

RECORD: dict[str, Any] = {
    "made_by": "tfmb train",
    "status": "finished",
    "config": {"epochs": 2, "learning_rate": 0.1, "augment": None},
    "data": {"name": "digits", "fingerprint": "a", "test_fingerprint": None, "num_classes": 10},
    "model": {
        "name": "mlp",
        "parameters": 7,
        "input_shape": [28, 28, 1],
        "normalization": {"mean": 33.3, "std": 78.5},
    },
    "result": {"test_loss": 0.3, "test_accuracy": 0.9, "updates": 12},
    "history": {"history": {"loss": [0.5, 0.3]}, "epochs": [0, 1]},
    "weights_sha256": "0" * 64,
}


def test_a_record_comes_back(tmp_path: Path) -> None:
    write_run(tmp_path, RECORD)
    assert read_run(tmp_path) == RECORD


def test_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    write_run(tmp_path, {**RECORD, "result": {"test_loss": np.float32(np.nan), "updates": np.int64(3)}})
    assert read_run(tmp_path)["result"] == {"test_loss": None, "updates": 3}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all entries of a record."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in inner for found in places(each, (*path, key)))]


@given(st.data())
def test_any_change_but_of_notes_is_seen(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, RECORD)
    record = json.loads((folder / "run.json").read_text())
    *way, last = data.draw(st.sampled_from([place for place in places(record) if place]))
    part = record
    for key in way:
        part = part[key]
    before = part[last]
    if data.draw(st.booleans()):
        del part[last]
    else:
        part[last] = data.draw(
            st.one_of(st.none(), st.integers(), st.text(), st.floats(allow_nan=False), st.just({}), st.just([])).filter(
                lambda value: json.dumps(value) != json.dumps(before)
            )
        )
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"\A[^\n]*\Z"):
        read_run(folder)


def test_notes_are_the_users(tmp_path: Path) -> None:
    write_run(tmp_path, {**RECORD, "status": "running"})
    text = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**text, "notes": {"why": ["a try", 1]}}))
    assert read_run(tmp_path)["notes"] == {"why": ["a try", 1]}
    write_run(tmp_path, RECORD)
    assert read_run(tmp_path) == {**RECORD, "notes": {"why": ["a try", 1]}}


def test_what_is_added_elsewhere_is_told_where_it_belongs(tmp_path: Path) -> None:
    write_run(tmp_path, RECORD)
    text = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**text, "comment": "mine"}))
    with pytest.raises(DataError, match="what you add belongs under 'notes'"):
        read_run(tmp_path)


def test_records_from_before_there_was_a_checksum_are_read(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({**RECORD, "result": {"noise_scale": float("nan")}}))
    assert read_run(tmp_path) == {**RECORD, "result": {"noise_scale": None}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data", 3),
        ("result", "good"),
        ("result", {"updates": -1}),
        ("config", []),
        ("history", {"history": {"loss": 3}, "epochs": []}),
        ("model", {"normalization": {"mean": None, "std": 1.0}}),
        ("model", {"normalization": {"mean": 0.0, "std": 0}}),
        ("model", {"input_shape": [28, 0, 1]}),
        ("weights_sha256", "g" * 64),
        ("versions", {"tfmb": 1}),
    ],
)
def test_what_makes_no_sense_is_refused_though_its_checksum_is_right(key: str, value: Any, tmp_path: Path) -> None:
    write_run(tmp_path, {**RECORD, key: value})
    with pytest.raises(DataError, match=rf"{key}.*the run is damaged"):
        read_run(tmp_path)


def test_a_record_of_a_later_version_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_record, "FORMAT", 3)
    write_run(tmp_path, RECORD)
    monkeypatch.undo()
    with pytest.raises(DataError, match="is of format 3: read it with a newer tfmb"):
        read_run(tmp_path)


def test_a_record_without_its_checksum_is_refused(tmp_path: Path) -> None:
    sealed = seal(RECORD)
    del sealed["sha256"]
    (tmp_path / "run.json").write_text(json.dumps(sealed))
    with pytest.raises(DataError, match="not as it was written"):
        read_run(tmp_path)


def test_the_schema_is_one(tmp_path: Path) -> None:
    schema = run_record._schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(RECORD, schema)
    assert re.fullmatch(r"urn:tfmb:run:\d+", schema["$id"])
    assert schema["$id"].endswith(str(run_record.FORMAT))
