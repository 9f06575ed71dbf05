"""What an export says of itself: written by the schema, read by the schema, nothing run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfmb.errors import ConfigError, DataError
from tfmb.serving import provenance
from tfmb.serving.provenance import EXTRAS, PROVENANCE_FILE, check_export, is_signed, make
from tfmb.storage.checksums import SUMS_FILE, write_sums

pytestmark = pytest.mark.usefixtures("fresh_keras")

TENSOR = {"name": "images", "dtype": "uint8", "shape": [None, 28, 28, 1]}
FACTS: dict[str, Any] = {
    "versions": dict.fromkeys(["tfmb", "tensorflow", "keras", "numpy", "python"], "1.0"),
    "model": {"name": "mlp", "parameters": 3},
    "weights": {"kind": None, "sha256": "0" * 64},
    "signatures": {"serving_default": {"inputs": [TENSOR], "outputs": [TENSOR]}},
    "verification": {"rows": 4, "max_difference": 0.0},
    "comparison": None,
}
TOLD = {
    "batch_size": np.int64(64),
    "learning_rate": {"class": "Cosine", "rate": 0.1},
    "optimizer": {"class": "Adam", "beta_1": np.float32(0.5), "limit": float("inf")},
    "seed": 0,
    "data": {"fingerprint": "abc", "train_examples": 3},
    "metrics": {"loss": float("nan"), "accuracy": 1.0},
    "noise_scale": 12.5,
}


def exported(folder: Path, told: dict[str, Any] | None = None) -> Path:
    (folder / EXTRAS).mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"model")
    provenance.write(folder, make(told or {}, FACTS))
    write_sums(folder)
    return folder


def test_what_was_told_comes_back_and_the_rest_is_none(tmp_path: Path) -> None:
    record = check_export(exported(tmp_path / "1", TOLD))
    assert record["batch_size"] == 64
    assert record["optimizer"] == {"class": "Adam", "beta_1": 0.5, "limit": None}
    assert record["metrics"] == {"loss": None, "accuracy": 1.0}
    assert record["run"] is None
    nothing = check_export(exported(tmp_path / "2"))
    assert all(nothing[name] is None for name in provenance.KNOWN_TO_CALLERS)
    assert set(nothing) == set(record) == set(provenance._schema()["required"])


@pytest.mark.process
def test_it_needs_no_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tfmb.serving.provenance import check_export; "
        "check_export(Path(sys.argv[1])); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, exported(tmp_path / "1")], check=True)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"colour": 1}, "unknown entry 'colour': give batch_size, "),
        ({"batch_size": 0}, r"provenance.batch_size is 0.*minimum 1\): see docs/serving.md"),
        ({"optimizer": {"name": "x"}}, "provenance.optimizer has no 'class'"),
        ({"metrics": {"loss": "low"}}, "provenance.metrics.loss is 'low'"),
        ({"data": {"fingerprint": "x", "rows": [1]}}, "provenance.data.rows"),
        ({"optimizer": {"class": "x", "rule": object()}}, "not JSON serializable"),
    ],
)
def test_what_makes_no_sense_is_refused(told: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(told, FACTS)


def test_what_would_be_too_large_to_read_is_not_written(tmp_path: Path) -> None:
    record = make({"optimizer": {"class": "x", "notes": "y" * 2**20}}, FACTS)
    with pytest.raises(ConfigError, match="too large"):
        provenance.write(tmp_path, record)


FORGED: dict[str, tuple[str | None, str]] = {
    "no JSON": ("{", "is no JSON"),
    "NaN": ('{"format": NaN}', "NaN is no number"),
    "twice": ('{"format": 1, "format": 1}', "a name stands twice"),
    "deep": ("[" * 100_000, "is no JSON"),
    "deep where anything may stand": (None, "nested too deeply|is no JSON"),
    "another format": ('{"format": 2}', "is of format 2: read it with a newer tfmb"),
    "no table": ("[]", "is list of 0"),
    "huge": (" " * (2**20 + 1), "is too large"),
    "entry missing": ('{"format": 1}', "has no 'created'"),
}


@pytest.mark.parametrize("case", FORGED)
def test_forged_records_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    folder = exported(tmp_path / "1")
    text, words = FORGED[case]
    if text is None:
        record = make({"optimizer": {"class": "x", "more": 1}}, FACTS)
        text = json.dumps(record).replace('"more": 1', '"more": ' + "[" * 90_000 + "]" * 90_000)
    (folder / PROVENANCE_FILE).write_text(text)
    write_sums(folder)
    with pytest.raises(DataError, match=words) as caught:
        check_export(folder)
    assert "\n" not in str(caught.value)


def test_an_unknown_entry_and_a_name_that_leaves_are_refused(tmp_path: Path) -> None:
    folder = exported(tmp_path / "1")
    record = json.loads((folder / PROVENANCE_FILE).read_text())
    for change, words in (
        ({"x": 1}, "unknown entry 'x'"),
        ({"signatures": {"../x": record["signatures"]["serving_default"]}}, "'serving_default'"),
        ({"created": "now"}, "created is 'now'"),
        ({"weights": {"kind": "mean", "sha256": "0" * 64}}, "weights.kind"),
    ):
        (folder / PROVENANCE_FILE).write_text(json.dumps({**record, **change}))
        write_sums(folder)
        with pytest.raises(DataError, match=words):
            check_export(folder)


def test_one_of_ours_must_have_its_checksums(tmp_path: Path) -> None:
    folder = exported(tmp_path / "1")
    assert is_signed(folder)
    (folder / SUMS_FILE).unlink()
    assert is_signed(folder)
    with pytest.raises(DataError, match="SHA256SUMS cannot be read"):
        check_export(folder)
    (folder / PROVENANCE_FILE).unlink()
    assert not is_signed(folder)
    with pytest.raises(DataError, match="has no SHA256SUMS: tfmb did not write it"):
        check_export(folder)
    (tmp_path / "link").symlink_to(exported(tmp_path / "2"))
    for place in (tmp_path / "link", tmp_path / "nowhere", folder / "saved_model.pb"):
        with pytest.raises(DataError, match="is no folder of an export"):
            check_export(place)


def test_others_read_the_schema_too() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(Path(provenance.__file__).with_name("export.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(make(TOLD, FACTS), schema, cls=jsonschema.Draft202012Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**make(TOLD, FACTS), "seed": "x"}, schema, cls=jsonschema.Draft202012Validator)
