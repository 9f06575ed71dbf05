"""`tfmb.export`: numbered versions, named signatures, the loop's own probabilities in a fresh process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.data.source import Normalization
from tfmb.errors import ConfigError, DataError, DirectoryError


def classifier() -> Any:
    bare = tfmb.models.mlp((28, 28, 1), 10, seed=0)
    return tfmb.models.with_preprocessing(bare, (28, 28, 1), Normalization(mean=0.13, std=0.3))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)


def test_versions_count_up_and_nothing_is_left_over(tmp_path: Path) -> None:
    model, folder = classifier(), tmp_path / "name"
    (folder / "7").mkdir(parents=True)
    assert tfmb.export(model, folder, logits=True) == folder / "8"
    assert tfmb.export(model, folder, logits=True) == folder / "9"
    assert sorted(path.name for path in folder.iterdir()) == ["7", "8", "9"]


def test_a_classifier_answers_logits_probabilities_and_class(tmp_path: Path, images: np.ndarray) -> None:
    model = classifier()
    version = tfmb.export(model, tmp_path, logits=True)
    signatures = tf.saved_model.load(str(version)).signatures
    answer = signatures["serving_default"](images=tf.constant(images))
    expected = keras.ops.softmax(model(images)).numpy()
    assert sorted(answer) == ["class_id", "logits", "probabilities"]
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
    assert answer["class_id"].dtype == tf.int64
    np.testing.assert_array_equal(answer["class_id"], expected.argmax(-1))
    encoded = tf.constant([tf.io.encode_png(image).numpy() for image in images])
    by_bytes = signatures["serve_bytes"](image_bytes=encoded)
    np.testing.assert_allclose(by_bytes["probabilities"], expected, atol=1e-6)


def test_serve_bytes_resizes_and_turns_grey(tmp_path: Path, images: np.ndarray) -> None:
    version = tfmb.export(classifier(), tmp_path, logits=True)
    serve = tf.saved_model.load(str(version)).signatures["serve_bytes"]
    larger = tf.repeat(tf.repeat(tf.repeat(tf.constant(images[0]), 3, 0), 3, 1), 3, 2)
    answer = serve(image_bytes=tf.constant([tf.io.encode_png(larger).numpy(), tf.io.encode_png(images[0]).numpy()]))
    np.testing.assert_allclose(answer["probabilities"][0], answer["probabilities"][1], atol=0.15)


def test_the_compiled_loss_tells_logits(tmp_path: Path) -> None:
    model = classifier()
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert "probabilities" in outputs_of(tfmb.export(model, tmp_path / "logits"))
    model.compile(loss="mse")
    assert "probabilities" not in outputs_of(tfmb.export(model, tmp_path / "values"))


def test_several_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    a, b = keras.Input((3,), name="age"), keras.Input((2,), name="income")
    joined = keras.layers.Concatenate()([a, b])
    model = keras.Model(
        {"age": a, "income": b},
        {"price": keras.layers.Dense(1)(joined), "risk": keras.layers.Dense(2)(joined)},
    )
    served = tf.saved_model.load(str(tfmb.export(model, tmp_path))).signatures["serving_default"]
    _, inputs = served.structured_input_signature
    assert {name: tuple(spec.shape) for name, spec in inputs.items()} == {"age": (None, 3), "income": (None, 2)}
    x = {"age": np.ones((4, 3), np.float32), "income": np.full((4, 2), 2, np.float32)}
    answer = served(**{name: tf.constant(value) for name, value in x.items()})
    expected = model(x)
    assert sorted(answer) == ["price", "risk"]
    for name in answer:
        np.testing.assert_allclose(answer[name], expected[name], atol=1e-6)


def test_the_trained_weights_leave_under_replicas_too(tmp_path: Path, strategy: Any, images: np.ndarray) -> None:
    model = classifier()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    tfmb.fit(model, images, np.arange(5), batch_size=3, epochs=2, verbose=0, strategy=strategy, seed=0)
    served = tf.saved_model.load(str(tfmb.export(model, tmp_path))).signatures["serving_default"]
    np.testing.assert_allclose(served(images=tf.constant(images))["logits"], model(images), atol=1e-6)


def test_saved_model_cli_shows_and_runs_it(tmp_path: Path, images: np.ndarray) -> None:
    version = tfmb.export(classifier(), tmp_path / "m", logits=True)
    np.save(tmp_path / "x.npy", images)
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    shown = subprocess.run([*command, "show", "--dir", version, "--all"], capture_output=True, text=True, check=True)
    assert "signature_def['serving_default']" in shown.stdout
    assert "inputs['images']" in shown.stdout
    where = ["--dir", str(version), "--tag_set", "serve", "--signature_def", "serving_default"]
    ran = subprocess.run(
        [*command, "run", *where, "--inputs", f"images={tmp_path / 'x.npy'}", "--outdir", str(tmp_path / "out")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "class_id" in ran.stdout
    assert np.load(tmp_path / "out" / "probabilities.npy").shape == (5, 10)


def test_an_export_that_differs_is_refused_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    save = tf.saved_model.save

    def save_other_weights(*arguments: Any, **named: Any) -> None:
        kernel = model.trainable_variables[0]
        kernel.assign(kernel + 0.01)
        save(*arguments, **named)
        kernel.assign(kernel - 0.01)

    monkeypatch.setattr(tf.saved_model, "save", save_other_weights)
    with pytest.raises(DataError, match="differ by"):
        tfmb.export(model, tmp_path / "m", logits=True)
    assert not list((tmp_path / "m").iterdir())


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a built"):
        tfmb.export(keras.Sequential([keras.layers.Dense(1)]), tmp_path / "m")
    one = keras.Input((3,))
    with pytest.raises(ConfigError, match="one output"):
        tfmb.export(keras.Model(one, [keras.layers.Dense(1)(one)] * 2), tmp_path / "m", logits=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryError, match="cannot be made"):
        tfmb.export(classifier(), tmp_path / "file", logits=True)


def outputs_of(version: Path) -> set[str]:
    return set(tf.saved_model.load(str(version)).signatures["serving_default"].structured_outputs)
