"""Exports of runs: what their files tell, raw weights and averages, comparisons with the version before."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfmb.backend import tf
from tfmb.cli import main
from tfmb.environment import children
from tfmb.errors import ConfigError, DataError
from tfmb.jobs.config import TrainConfig
from tfmb.jobs.restore import restore_run
from tfmb.jobs.train import train_job
from tfmb.serving import comparison
from tfmb.serving.export import Options
from tfmb.serving.export_run import export_run, provenance_of_run, rows_to_compare
from tfmb.serving.provenance import check_export

pytestmark = pytest.mark.usefixtures("fresh_keras", "same_process")


def trained(folder: Path, **options: Any) -> Path:
    folder.mkdir()
    config = TrainConfig(dataset="digits", model="mlp", validation_size=100, **options)
    train_job(config, lambda name: folder, lambda line: None, verbose=0)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "averaged", epochs=2, optimizer="adam,ema_momentum=0.9", seed=3)


@pytest.fixture(scope="module")
def raw_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "raw", epochs=2, seed=3)


def test_all_that_a_run_knows(run: Path, tmp_path: Path) -> None:
    made = export_run(restore_run(run), tmp_path / "m")
    record, ran = check_export(made.folder), json.loads((run / "run.json").read_text())
    assert record == made.record
    assert (record["batch_size"], record["seed"], record["learning_rate"]) == (64, 3, 0.001)
    assert record["optimizer"]["class"] == "Adam"
    assert record["optimizer"]["ema_momentum"] == 0.9
    assert record["data"]["fingerprint"] == ran["data"]["fingerprint"]
    assert record["metrics"] == {
        key: value for key, value in ran["result"].items() if key.endswith(("accuracy", "loss"))
    }
    assert record["noise_scale"] is None
    assert record["weights"] == {"kind": "ema", "sha256": ran["weights_sha256"]}
    assert record["run"] == {
        "name": "averaged", "updates": ran["result"]["updates"], "epochs": 2, "virtual_replicas": "auto",
        "versions": ran["versions"],
    }  # fmt: skip
    assert record["verification"]["max_difference"] < 1e-6


def test_raw_weights_are_those_of_a_run_without_averages(run: Path, raw_run: Path, tmp_path: Path) -> None:
    kinds = {}
    for kind in ("raw", "ema"):
        made = export_run(restore_run(run), tmp_path / kind, Options(weights=kind))
        assert made.record["weights"]["kind"] == kind
        kinds[kind] = made.record["weights"]["sha256"]
    without, averaged = (json.loads((path / "run.json").read_text())["weights_sha256"] for path in (raw_run, run))
    assert kinds == {"raw": without, "ema": averaged}
    with pytest.raises(ConfigError, match=r"--weights raw: .* keeps no averages"):
        export_run(restore_run(raw_run), tmp_path / "m", Options(weights="raw"))
    assert not (tmp_path / "m").exists()


def test_the_numbers_that_other_steps_leave_in_a_run(run: Path) -> None:
    restored = restore_run(run)
    restored.record["result"]["noise_scale"] = 321.5
    assert provenance_of_run(restored)["noise_scale"] == 321.5
    del restored.record["result"]
    told = provenance_of_run(restored)
    assert told["metrics"]["val_loss"] > 0  # of the last line of metrics.jsonl
    assert told["run"]["updates"] == 42
    restored.record["config"]["batch_size"] = "full"
    assert provenance_of_run(restored)["batch_size"] == 1337


def test_against_the_version_before(run: Path, raw_run: Path, tmp_path: Path) -> None:
    first, second = restore_run(raw_run), restore_run(run)
    with pytest.raises(ConfigError, match="holds no version yet"):
        export_run(first, tmp_path / "m", Options(against="latest"))
    one = export_run(first, tmp_path / "m", Options(batch_size=7)).folder
    rows = rows_to_compare(second)
    assert rows.shape == (360, 28, 28, 1)
    two = export_run(second, tmp_path / "m", Options(against="latest", samples=rows))
    compared = two.record["comparison"]
    a, b = first.model(rows).numpy(), second.model(rows).numpy()
    assert (compared["against"], compared["rows"], compared["samples"]) == ("1", 360, "given")
    assert compared["outputs"]["logits"]["max_difference"] == pytest.approx(np.abs(a - b).max(), rel=1e-5)
    assert compared["outputs"]["logits"]["mean_difference"] == pytest.approx(np.abs(a - b).mean(), rel=1e-5)
    assert set(compared["outputs"]) == {"logits", "probabilities"}
    assert compared["same_class_ids"] == np.mean(a.argmax(-1) == b.argmax(-1))
    (one / "fingerprint.pb").unlink()
    with pytest.raises(DataError, match=r"fingerprint.pb is missing"):
        export_run(second, tmp_path / "m", Options(against=one))
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["1", "2"]


@pytest.mark.slow
def test_another_kind_of_model_cannot_be_compared(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tf.Module()
    module.function = tf.function(lambda age: {"price": age}, input_signature=[tf.TensorSpec([None, 3], name="age")])
    tf.saved_model.save(module, str(tmp_path / "theirs"), signatures={"serving_default": module.function})
    monkeypatch.setattr(comparison, "children", children)  # a process of its own, as for users
    with pytest.raises(ConfigError, match=r"takes other inputs \(age, not images\): it cannot be compared"):
        export_run(restore_run(run), tmp_path / "m", Options(against=tmp_path / "theirs"))
    assert not list((tmp_path / "m").iterdir())


@pytest.mark.compile
def test_on_the_command_line(
    run: Path, raw_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(raw_run), "--output", "m"]) == 0
    assert capsys.readouterr().out == "m/1\n"
    assert main(["export", str(run), "--output", "m", "--against", "latest", "--keras", "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["export"] == "m/2"
    assert result["comparison"]["rows"] == 360
    assert "against version 1, on 360 given rows: logits max " in err
    assert "of the classes are the same" in err
    assert Path("m/2/model.keras").is_file()
    assert main(["export", str(run), "--output", "m", "--against", "m/2,made_up"]) == 0
    assert "against version 2, on 256 made-up rows: logits max 0, mean 0" in capsys.readouterr().err
    for arguments, words in (
        (["--dataset", "mine:load"], "are for a comparison: give --against"),
        (["--weights", "best"], "unknown --weights 'best': give ema or raw"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["export", str(run), *arguments])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err
