"""`tfmb.export`: numbered versions, named signatures, the loop's own probabilities in a fresh process."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.data import Splits
from tfmb.data.source import Normalization
from tfmb.errors import ConfigError, DataError, DirectoryError, StorageError
from tfmb.runs.run_dir import hash_weights
from tfmb.serving.export import KERAS_FILE
from tfmb.serving.provenance import check_export

pytestmark = pytest.mark.usefixtures("fresh_keras")


def classifier() -> Any:
    bare = tfmb.models.mlp((28, 28, 1), 10, seed=0)
    return tfmb.models.with_preprocessing(bare, (28, 28, 1), Normalization(mean=0.13, std=0.3))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)


@pytest.mark.usefixtures("same_process")
def test_versions_count_up_and_nothing_is_left_over(tmp_path: Path) -> None:
    model, folder = classifier(), tmp_path / "name"
    (folder / "7").mkdir(parents=True)
    assert tfmb.export(model, folder, logits=True) == folder / "8"
    assert tfmb.export(model, folder, logits=True) == folder / "9"
    assert sorted(path.name for path in folder.iterdir()) == ["7", "8", "9"]


@pytest.mark.usefixtures("same_process")
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


@pytest.mark.usefixtures("same_process")
def test_serve_bytes_resizes_and_turns_grey(tmp_path: Path, images: np.ndarray) -> None:
    version = tfmb.export(classifier(), tmp_path, logits=True)
    serve = tf.saved_model.load(str(version)).signatures["serve_bytes"]
    larger = tf.repeat(tf.repeat(tf.repeat(tf.constant(images[0]), 3, 0), 3, 1), 3, 2)
    answer = serve(image_bytes=tf.constant([tf.io.encode_png(larger).numpy(), tf.io.encode_png(images[0]).numpy()]))
    np.testing.assert_allclose(answer["probabilities"][0], answer["probabilities"][1], atol=0.15)


@pytest.mark.usefixtures("same_process")
def test_the_compiled_loss_tells_logits(tmp_path: Path) -> None:
    model = classifier()
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logits = tfmb.export(model, tmp_path / "logits")
    assert logits is not None
    assert "probabilities" in outputs_of(logits)
    model.compile(loss="mse")
    values = tfmb.export(model, tmp_path / "values")
    assert values is not None
    assert "probabilities" not in outputs_of(values)


@pytest.mark.usefixtures("same_process")
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


def signature_protos(version: Path) -> dict[str, str]:
    """The signatures as the file has them: names, dtypes, shapes and tensors."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    found = SavedModel()
    found.ParseFromString((version / "saved_model.pb").read_bytes())
    return {name: str(signature) for name, signature in found.meta_graphs[0].signature_def.items()}


BUILD = """
import numpy as np
from tfmb.backend import keras
def build():
    a, b = keras.Input((3,)), keras.Input((4, 4, 1))
    joined = keras.layers.Concatenate()([a, keras.layers.Flatten()(b)])
    outputs = [keras.layers.Dense(1)(joined), keras.layers.Dense(2, name="risk")(joined)]
    return keras.Model([a, b], outputs)
def image_model():
    return keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
"""


@pytest.mark.process
@pytest.mark.usefixtures("same_process")
def test_names_are_the_same_in_one_process_and_in_another(tmp_path: Path) -> None:
    made: dict[str, Any] = {}
    exec(BUILD, made)
    code = BUILD + (
        "import sys, tfmb\n"
        "for _ in range(3): build(), image_model()\n"
        "print(tfmb.export(build(), sys.argv[1] + '/two'))\n"
        "print(tfmb.export(image_model(), sys.argv[1] + '/image', logits=True))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    others = dict(zip(("two", "image"), map(Path, done.stdout.split()), strict=True))
    for name, build, logits in (("two", made["build"], False), ("image", made["image_model"], True)):
        first, second = (tfmb.export(build(), tmp_path / name, logits=logits) for _ in range(2))
        assert first is not None
        assert second is not None
        here, again, there = (signature_protos(version) for version in (first, second, others[name]))
        assert here == again == there
        records = [check_export(version)["signatures"] for version in (first, second, others[name])]
        assert json.dumps(records[0]) == json.dumps(records[1]) == json.dumps(records[2])  # order too
        assert "keras_tensor" not in str(here)
    names = {kind: [tensor["name"] for tensor in records[0]["serving_default"][kind]] for kind in ("inputs", "outputs")}
    assert names == {"inputs": ["input"], "outputs": ["logits", "probabilities", "class_id"]}


@pytest.mark.usefixtures("same_process")
@pytest.mark.compile
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_no_bit_differs_within_a_process(name: str, tmp_path: Path, images: np.ndarray) -> None:
    bare = tfmb.models.MODELS[name]((28, 28, 1), 10, seed=0)
    model = tfmb.models.with_preprocessing(bare, (28, 28, 1), Normalization(mean=0.13, std=0.3))
    version = tfmb.export(model, tmp_path, logits=True)
    answer = tf.saved_model.load(str(version)).signatures["serving_default"](images=tf.constant(images))
    np.testing.assert_array_equal(answer["logits"], model(images))
    np.testing.assert_array_equal(answer["logits"], model.predict(images, verbose=0))
    np.testing.assert_array_equal(answer["probabilities"], tf.nn.softmax(model(images)))
    assert version is not None
    assert check_export(version)["verification"]["max_difference"] < 1e-6


def exported_bits(version: Path) -> dict[str, bytes]:
    """The bytes of every variable in a SavedModel."""
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    names = [name for name in reader.get_variable_to_shape_map() if not name.startswith("_CHECKPOINTABLE")]
    return {name: reader.get_tensor(name).tobytes() for name in names}


@pytest.mark.slow
@pytest.mark.usefixtures("same_process")
@pytest.mark.filterwarnings("ignore:.*normalise by the statistics")
def test_two_replicas_export_the_bits_of_one(tmp_path: Path, digits: Splits) -> None:
    """Also where the model lives on two devices, whose BatchNormalizations each saw their own rows."""
    found = {}
    for replicas in (1, 2):
        history = tfmb.fit(
            lambda: tfmb.models.resnet((28, 28, 1), 10, seed=0, width=4),
            digits.train.examples[:200].astype(np.float32) / 255,
            digits.train.labels[:200],
            optimizer=tfmb.optimizers.Adam(1e-3, use_ema=True),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            batch_size=32,
            epochs=2,
            verbose=0,
            seed=0,
            virtual_replicas=2,
            strategy="mirrored",
            devices=replicas,
        )
        version = tfmb.export(history.model, tmp_path / str(replicas), logits=True)
        assert version is not None
        found[replicas] = exported_bits(version)
    assert len(found[1]) > 20
    assert found[1] == found[2]


@pytest.mark.usefixtures("same_process")
def test_a_keras_file_beside_it(tmp_path: Path, images: np.ndarray) -> None:
    model = classifier()
    version = tfmb.export(model, tmp_path, logits=True, keras=True)
    assert version is not None
    assert f"{KERAS_FILE}\n" in (version / "SHA256SUMS").read_text()
    loaded = keras.models.load_model(version / KERAS_FILE)
    np.testing.assert_array_equal(loaded(images), model(images))
    check_export(version)
    without = tfmb.export(model, tmp_path, logits=True)
    assert without is not None
    assert not (without / KERAS_FILE).exists()


@pytest.mark.usefixtures("same_process")
def test_a_fixed_batch(tmp_path: Path, images: np.ndarray) -> None:
    served = tf.saved_model.load(str(tfmb.export(classifier(), tmp_path, logits=True, batch_size=5))).signatures
    assert served["serving_default"](images=tf.constant(images))["class_id"].shape == (5,)
    with pytest.raises(Exception, match=r"(?i)shape|incompatible|expected"):
        served["serving_default"](images=tf.constant(images[:2]))


@pytest.mark.usefixtures("same_process")
def test_the_record_of_a_compiled_and_trained_model(tmp_path: Path, images: np.ndarray) -> None:
    model = classifier()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.25, momentum=0.5), loss)
    history = tfmb.fit(model, images, np.arange(5), batch_size=3, epochs=2, verbose=0)
    told = {"batch_size": 3, "data": {"fingerprint": "abc"}, "noise_scale": 8}
    version = tfmb.export(model, tmp_path, provenance=told)
    assert version is not None
    record = check_export(version)
    assert record["optimizer"]["class"] == "SGD"
    assert (record["learning_rate"], record["optimizer"]["momentum"]) == (0.25, 0.5)
    assert record["metrics"] == {"loss": history.history["loss"][-1]}
    assert (record["batch_size"], record["data"], record["noise_scale"]) == (3, {"fingerprint": "abc"}, 8)
    assert record["seed"] is None
    assert record["model"] == {"name": "mlp", "parameters": model.count_params()}
    assert record["weights"] == {"kind": None, "sha256": hash_weights(model.get_weights())}
    assert record["verification"]["rows"] == 4
    with pytest.raises(ConfigError, match="unknown entry 'learning_rates'"):
        tfmb.export(model, tmp_path, provenance={"learning_rates": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


class OddOptimizer(keras.optimizers.SGD):
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "table": np.ones(3), "rule": object()}


@pytest.mark.usefixtures("same_process")
def test_what_optimizers_tell(tmp_path: Path) -> None:
    cosine = keras.optimizers.schedules.CosineDecay(0.1, 10)
    told = {}
    for name, optimizer in {
        "schedule": keras.optimizers.Adam(cosine),
        "function": keras.optimizers.Lion(lambda: 0.1),
        "scaled": keras.optimizers.LossScaleOptimizer(keras.optimizers.Nadam(0.1)),
        "odd": OddOptimizer(0.1),
        "none": None,
    }.items():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        if optimizer is not None:
            model.compile(optimizer, "mse")
        version = tfmb.export(model, tmp_path / name)
        assert version is not None
        told[name] = check_export(version)
    assert told["schedule"]["learning_rate"]["class"] == "CosineDecay"
    assert told["schedule"]["learning_rate"]["decay_steps"] == 10
    assert told["function"]["optimizer"].items() >= {"class": "Lion", "beta_1": 0.9}.items()
    assert told["function"]["learning_rate"] is None
    assert (told["scaled"]["optimizer"]["class"], told["scaled"]["learning_rate"]) == ("Nadam", 0.1)
    assert told["odd"]["optimizer"]["momentum"] == 0.0
    assert not {"table", "rule"} & set(told["odd"]["optimizer"])
    assert (told["none"]["optimizer"], told["none"]["metrics"]) == (None, None)


@pytest.mark.usefixtures("same_process")
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """Where TensorFlow writes, and where we do; its own error for it is also that of a full memory."""
    tfmb.export(classifier(), tmp_path, logits=True)
    for most in (1000, 200_000):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            with pytest.raises(StorageError, match=r"cannot be written \(.*\): the export is not made") as caught:
                tfmb.export(classifier(), tmp_path, logits=True, keras=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "\n" not in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["1"]


@pytest.mark.usefixtures("same_process")
def test_a_worker_that_is_not_the_first_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    for index in (1, 0):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}))
        made = tfmb.export(classifier(), tmp_path / "m", logits=True)
        assert made == (None if index else tmp_path / "m" / "1")
        assert (tmp_path / "m").exists() != bool(index)


@pytest.mark.slow
def test_killed_while_it_exports_it_leaves_no_version(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, tfmb\n"
        "from tfmb import saved_model\n"
        "def killed(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "setattr(saved_model, sys.argv[2], killed)\n"
        "saved_model._verify = lambda *_: {'rows': 1, 'max_difference': 0.0}\n"  # for speed
        "tfmb.export(tfmb.models.mlp((4,), 2), sys.argv[1])\n"
    )
    for step in ("write_warmup", "publish"):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path), step], capture_output=True, check=False)
        assert done.returncode == -9, done.stderr
        (leftover,) = tmp_path.iterdir()
        assert leftover.name.startswith(".tmp-")
    assert tfmb.export(tfmb.models.mlp((4,), 2), tmp_path) == tmp_path / "1"
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


@pytest.mark.usefixtures("same_process")
def test_the_trained_weights_leave_under_replicas_too(tmp_path: Path, strategy: Any, images: np.ndarray) -> None:
    model = classifier()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    tfmb.fit(model, images, np.arange(5), batch_size=3, epochs=2, verbose=0, strategy=strategy, seed=0)
    served = tf.saved_model.load(str(tfmb.export(model, tmp_path))).signatures["serving_default"]
    np.testing.assert_allclose(served(images=tf.constant(images))["logits"], model(images), atol=1e-6)


@pytest.mark.slow
def test_saved_model_cli_shows_and_runs_it(tmp_path: Path, images: np.ndarray) -> None:
    version = tfmb.export(classifier(), tmp_path / "m", logits=True)
    assert version is not None
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


@pytest.mark.process
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


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("inside", [".", "variables", "new/deeper"])
def test_finished_version_is_never_written_into(inside: str, tmp_path: Path) -> None:
    """`keras.Model.export` takes the version's own folder; here it holds a whole export that must stay whole."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    first = tfmb.export(model, tmp_path / "m")
    assert first is not None
    link = tmp_path / "link"
    link.symlink_to(first)
    for path in (first / inside, link / inside):
        with pytest.raises(ConfigError, match=rf"a finished export.*give the model's folder, {tmp_path / 'm'},"):
            tfmb.export(model, path)
    check_export(first)
    assert tfmb.export(model, tmp_path / "m") == tmp_path / "m" / "2"
