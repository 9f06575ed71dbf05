"""Exports: reproducible in fresh processes, like the run they were made of, or failed; and the command line."""

import json
import shutil
from pathlib import Path

import loops
import pytest
import subjects

import tfmb
from tfmb.backend import keras, tf
from tfmb.cli import main
from tfmb.errors import DataError
from tfmb.verification import exports


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a run of a dense net on digits, the folder of its export)."""
    folder = tmp_path_factory.mktemp("exports")
    assert main([*subjects.train_options("mlp"), "--run-dir", str(folder / "run"), "--json"]) == 0
    assert main(["export", str(folder / "run"), "--output", str(folder / "saved")]) == 0
    return folder / "run", folder / "saved"


@pytest.mark.slow
def test_an_export_and_its_run_agree(made: tuple[Path, Path]) -> None:
    run, saved = made
    report = exports.verify_export(saved, run)
    assert report.passed, report
    assert report.target == str(saved / "1")
    assert {check.name: check.status for check in report.checks} == dict.fromkeys(
        ("provenance", "fresh processes", "parity with the run", "serve_bytes"), "passed"
    )


@pytest.mark.slow
def test_another_runs_export_is_failed(made: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = made
    shape, classes = (28, 28, 1), 10
    norm = tfmb.data.Normalization(mean=0.1, std=0.3)
    other = tfmb.models.with_preprocessing(tfmb.models.mlp(shape, classes, seed=9), shape, norm)
    tfmb.export(other, tmp_path / "other", logits=True)
    parity = exports.verify_export(tmp_path / "other", run).check("parity with the run")
    assert parity.status == "failed", parity


@pytest.mark.slow
def test_outputs_that_are_not_finite_or_not_reproducible_are_failed(tmp_path: Path) -> None:
    inputs = keras.Input((3,), name="x")
    wild = keras.Model(inputs, keras.layers.Lambda(lambda x: x / 0.0, name="wild")(inputs))
    random = keras.Model(
        inputs,
        keras.layers.Lambda(lambda x: x * tf.raw_ops.RandomUniform(shape=[3], dtype=tf.float32), name="r")(inputs),
    )
    for model, words in ((wild, "is not finite"), (random, "differ")):
        folder = tmp_path / words.replace(" ", "")
        serve = tf.function(lambda x, model=model: {"y": model(x)}, autograph=False)
        spec = tf.TensorSpec([None, 3], name="x")
        signatures = {"serving_default": serve.get_concrete_function(x=spec)}
        tf.saved_model.save(tf.Module(), str(folder / "1"), signatures=signatures)
        check = exports.verify_export(folder).check("fresh processes")
        assert check.status == "failed", check
        assert words in check.detail


def test_what_cannot_be_loaded_is_failed(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"nothing")
    report = exports.verify_export(tmp_path)
    assert not report.passed
    assert "cannot be loaded" in report.check("fresh processes").detail
    with pytest.raises(DataError, match="holds no SavedModel"):
        exports.verify_export(tmp_path / "none")


def test_the_newest_version_is_the_highest_number(tmp_path: Path) -> None:
    for name in ("2", "10", "x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    assert exports.newest_version(tmp_path) == tmp_path / "10"
    assert exports.newest_version(tmp_path / "2") == tmp_path / "2"


def test_provenance_is_asked_before_anything_is_loaded(made: tuple[Path, Path], tmp_path: Path) -> None:
    _, saved = made
    shutil.copytree(saved / "1", tmp_path / "1")
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"nothing")
    report = exports.verify_export(tmp_path)
    assert [check.status for check in report.checks] == ["failed", *["not applicable"] * 3]
    assert "saved_model.pb" in report.checks[0].detail


@pytest.mark.slow
def test_the_command_on_an_export(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, saved = made
    assert main(["verify", str(saved), str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is True
    assert told["checks"][0]["name"] == "provenance"


@pytest.mark.compile
@pytest.mark.parametrize(("function", "code", "words"), [("right", 0, "verified:"), ("forgetful", 70, "missing 1/b")])
def test_the_command_on_a_loop(
    function: str, code: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "right", loops.loop(), raising=False)
    monkeypatch.setattr(loops, "forgetful", loops.loop("missing 1/b"), raising=False)
    assert main(["verify", f"loops:{function}", "--model", "loops:build", "--dataset", "loops:data"]) == code
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere"], 65, "no such run or export"),
        (["loops:right"], 2, "give --model module:build and --dataset module:load"),
        (["a b:c"], 2, "is not of the form package.module:function"),
    ],
)
def test_bad_targets_are_refused_in_one_line(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["verify", *arguments])
    assert ended.value.code == code
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_options_that_do_not_belong_are_refused(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, saved = made
    for arguments in ([str(run), str(run)], [str(saved), "--dataset", "a:b"], [str(saved), str(run), str(run)]):
        with pytest.raises(SystemExit) as ended:
            main(["verify", *arguments])
        assert ended.value.code == 2
        assert "error[2]" in capsys.readouterr().err
