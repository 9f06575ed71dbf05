"""Classes and probabilities of files and rows, by a run's model or an exported one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.cli import main
from tfmb.data import Splits
from tfmb.errors import ConfigError, DataError
from tfmb.jobs.config import TrainConfig
from tfmb.jobs.restore import RestoredRun, restore_run
from tfmb.jobs.train import train_job
from tfmb.serving.classifier import ExportedClassifier, RunClassifier, read_image
from tfmb.storage.checksums import write_sums

pytestmark = pytest.mark.usefixtures("fresh_keras", "same_process")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RestoredRun:
    folder = tmp_path_factory.mktemp("run")
    config = TrainConfig(dataset="digits", model="mlp", epochs=8)
    train_job(config, lambda name: folder, lambda line: None, verbose=0)
    return restore_run(folder)


def write_png(path: Path, pixels: Any) -> str:
    path.write_bytes(tf.io.encode_png(pixels).numpy())
    return str(path)


def test_rows_and_files_of_the_same_image_agree(run: RestoredRun, digits: Splits, tmp_path: Path) -> None:
    assert digits.test is not None
    path = write_png(tmp_path / "a.png", digits.test.examples[7])
    by_row, by_file = RunClassifier(run).predict(["test:7", path])
    assert by_row.label == digits.test.labels[7]
    assert by_file.label is None
    assert by_row.class_id == by_file.class_id == by_row.label
    assert by_row.probability == pytest.approx(by_file.probability, abs=1e-6)


def test_an_export_agrees_with_its_run(run: RestoredRun, digits: Splits, tmp_path: Path) -> None:
    assert digits.test is not None
    path = write_png(tmp_path / "a.png", digits.test.examples[3])
    tfmb.export(run.model, tmp_path / "m", logits=run.logits)
    by_export = ExportedClassifier(tmp_path / "m").predict([path])
    by_run = RunClassifier(run).predict([path])
    assert by_export[0].class_id == by_run[0].class_id
    assert by_export[0].probability == pytest.approx(by_run[0].probability, abs=1e-6)


def test_colour_and_size_are_brought_to_the_models(tmp_path: Path) -> None:
    colour = np.zeros((56, 28, 3), np.uint8)
    colour[:28] = 255
    pixels = read_image(write_png(tmp_path / "c.png", colour), (28, 28, 1))
    assert pixels.shape == (28, 28, 1)
    assert pixels.dtype == np.uint8
    assert (pixels[:13] == 255).all()
    assert (pixels[15:] == 0).all()
    np.testing.assert_array_equal(read_image(str(tmp_path / "c.png"), (28, 28, 1), invert=True), 255 - pixels)


def test_what_cannot_be_read_gets_one_line(run: RestoredRun, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    classifier = RunClassifier(run)
    for image, words in {
        str(tmp_path / "text.png"): "no image that can be read",
        str(tmp_path / "none.png"): "cannot be read",
        "test:360": "the test split has 360 rows",
    }.items():
        with pytest.raises(DataError, match=words) as caught:
            classifier.predict([image])
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="holds no SavedModel"):
        ExportedClassifier(tmp_path)


def test_a_damaged_export_is_refused(run: RestoredRun, tmp_path: Path) -> None:
    version = tfmb.export(run.model, tmp_path / "m", logits=True)
    assert version is not None
    assert ExportedClassifier(version).provenance is not None
    for path, words in (
        ("extra", "extra is not listed"),
        ("saved_model.pb", "saved_model.pb does not match SHA256SUMS"),
    ):
        (version / path).write_bytes(b"damaged")
        with pytest.raises(DataError, match=words):
            ExportedClassifier(version)
        (version / "extra").unlink(missing_ok=True)
    write_sums(version)  # a forger can do that
    with pytest.raises(DataError, match="cannot be loaded"):
        ExportedClassifier(version)


def test_an_export_of_a_fixed_batch_takes_any_number_of_files(run: RestoredRun, digits: Splits, tmp_path: Path) -> None:
    assert digits.test is not None
    paths = [write_png(tmp_path / f"{row}.png", digits.test.examples[row]) for row in range(5)]
    tfmb.export(run.model, tmp_path / "m", logits=True, batch_size=2)
    found = ExportedClassifier(tmp_path / "m").predict(paths)
    expected = RunClassifier(run).predict(paths)
    assert [(p.image, p.class_id) for p in found] == [(p.image, p.class_id) for p in expected]
    assert [p.probability for p in found] == pytest.approx([p.probability for p in expected], abs=1e-6)


def test_what_others_exported_is_served_but_not_a_program_that_writes(
    run: RestoredRun, digits: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert digits.test is not None
    path = write_png(tmp_path / "a.png", digits.test.examples[3])
    for name in ("fair", "hostile"):

        @tf.function(input_signature=[tf.TensorSpec([None, 28, 28, 1], tf.uint8, name="images")])
        def serve(images: Any, hostile: bool = name == "hostile") -> Any:
            if hostile:
                tf.io.write_file(str(tmp_path / "written"), "x")
            return {"probabilities": tf.nn.softmax(run.model(images, training=False))}

        module = tf.Module()
        module.weights = [v.value for v in run.model.variables]
        tf.saved_model.save(module, str(tmp_path / name / "1"), signatures=serve)
    assert main(["predict", path, "--run", str(tmp_path / "fair")]) == 0
    out, err = capsys.readouterr()
    assert f"class {RunClassifier(run).predict([path])[0].class_id} " in out
    assert err.count("fair/1 has no SHA256SUMS: it is unverified") == 1
    with pytest.raises(SystemExit) as ended:
        main(["predict", path, "--run", str(tmp_path / "hostile")])
    assert ended.value.code == 65
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert "its operation 'WriteFile' may do more than compute" in err
    assert not (tmp_path / "written").exists()


def test_a_model_that_is_no_image_classifier_is_refused(tmp_path: Path) -> None:
    from tfmb.backend import keras

    table = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    tfmb.export(table, tmp_path / "t", logits=True)
    with pytest.raises(ConfigError, match="one image"):
        ExportedClassifier(tmp_path / "t")


def test_without_a_name_it_is_the_newest_run_that_needs_none(
    run: RestoredRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "ours").symlink_to(run.run_dir)
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    tfmb.fit(model, np.ones((8, 2)), np.ones((8, 1)), verbose=0, run_dir="runs/a-later-fit")
    assert main(["predict", "test:0"]) == 0
    out, err = capsys.readouterr()
    assert "class" in out
    assert "model of runs/ours\n" in err
    (tmp_path / "runs" / "ours").unlink()
    with pytest.raises(SystemExit):
        main(["predict", "test:0"])
    assert "no finished run of `tfmb train` in runs/" in capsys.readouterr().err
