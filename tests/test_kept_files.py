"""What earlier versions wrote is gone on with, loaded and verified by this one, or refused with what to do."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import kept_files
import numpy as np
import pytest

import tfmb
from tfmb.backend import tf
from tfmb.errors import ConfigError
from tfmb.runs.run_dir import hash_weights, load_weights
from tfmb.runs.run_record import read_run
from tfmb.serving.provenance import check_export

FOLDER = Path(__file__).parent / "fixtures"
VERSIONS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
# Versions whose runs cannot go on, and the words that say what to do then. So far there is none.
REFUSED: dict[str, str] = {}
# The epoch in which it was stopped: 0.1.0 kept sums, and not the state of Keras's metrics, which a warning says.
PARTS_OF_EPOCHS = {("0.1.0", kept_files.STOPPED // 4)}

pytestmark = pytest.mark.usefixtures("fresh_keras")


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kept(version: str, tmp_path: Path) -> Path:
    shutil.copytree(FOLDER / version, tmp_path / version)
    return tmp_path / version


def fit(run_dir: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of another processor, and other versions of libraries
        return kept_files.fit(run_dir, kept_files.build(), allow_mismatch=True)


def test_this_version_is_kept() -> None:
    assert tfmb.__version__ in VERSIONS, "python tests/helpers/kept_files.py tests/fixtures/VERSION"


def test_a_finished_run_is_read(kept: Path) -> None:
    record = read_run(kept / "finished")
    assert record["versions"]["tfmb"] == kept.name
    weights = load_weights(kept / "finished", record["weights_sha256"])
    assert hash_weights(weights) == record["weights_sha256"]


def test_a_finished_run_answers(kept: Path, version: str) -> None:
    record = read_run(kept / "finished")
    if version in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[version]):
            fit(kept / "finished")
        return
    history = fit(kept / "finished")
    assert history.history == record["history"]["history"]
    assert hash_weights(history.model.get_weights()) == record["weights_sha256"]


def test_a_stopped_run_goes_on(kept: Path, version: str) -> None:
    checkpoints = sorted(path.name for path in (kept / "stopped" / "checkpoints").glob("step-*"))
    assert checkpoints[-1] == f"step-{kept_files.STOPPED:012d}"
    if version in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[version]):
            fit(kept / "stopped")
        assert sorted(path.name for path in (kept / "stopped" / "checkpoints").glob("step-*")) == checkpoints
        return
    history = fit(kept / "stopped")
    whole = read_run(kept / "finished")["history"]["history"]
    assert history.epoch == list(range(kept_files.EPOCHS))
    for key, values in whole.items():
        epochs = [epoch for epoch in history.epoch if key.startswith("val_") or (version, epoch) not in PARTS_OF_EPOCHS]
        found = np.array(history.history[key])[epochs]
        np.testing.assert_allclose(found, np.array(values)[epochs], rtol=1e-3, err_msg=key)  # another processor rounds
    assert not list((kept / "stopped" / "checkpoints").glob("damaged-*"))


def test_a_search_goes_on(kept: Path) -> None:
    lines = (kept / "search" / "journal.jsonl").read_text().splitlines()
    told = [event["trial"] for event in map(json.loads, lines) if event["event"] == "ended"]
    assert len(told) == 2
    found = kept_files.search(kept / "search", 3)
    assert [trial.trial for trial in found.record.trials][:2] == told
    assert len(found.record.trials) == 3
    now = (kept / "search" / "journal.jsonl").read_text().splitlines()
    assert now[: len(lines)] == lines  # nothing was tried again


def test_an_export_is_whole_and_serves(kept: Path) -> None:
    folder = kept / "export" / "1"
    assert check_export(folder)["versions"]["tfmb"] == kept.name
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    name = next(iter(served.structured_input_signature[1]))
    answers = served(**{name: tf.constant(kept_files.X)})
    model = kept_files.build()
    record = read_run(kept / "finished")
    model.set_weights(load_weights(kept / "finished", record["weights_sha256"]))
    np.testing.assert_allclose(answers["logits"], model(kept_files.X, training=False), rtol=1e-5, atol=1e-5)
