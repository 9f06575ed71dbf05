"""Exports as TensorFlow Serving meets them: its requests by REST and gRPC, warm-up, and what docs/serving.md says."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import checked_here
from serving import Server, grpc_port, rest_port

import tfmb
from tfmb.backend import keras, tf
from tfmb.data.source import Normalization
from tfmb.serving.provenance import check_export
from tfmb.serving.run_saved_model import sample_rows
from tfmb.serving.signatures import ServedModel
from tfmb.serving.warmup import WARMUP_FILE, write_warmup

pytestmark = pytest.mark.usefixtures("fresh_keras")

DOCS = Path(__file__).parents[1] / "docs" / "serving.md"


def classifier() -> Any:
    bare = tfmb.models.mlp((28, 28, 1), 10, seed=0)
    return tfmb.models.with_preprocessing(bare, (28, 28, 1), Normalization(mean=0.13, std=0.3))


def table() -> Any:
    age, zone = keras.Input((3,), name="age"), keras.Input((2,), dtype="int32", name="zone")
    joined = keras.layers.Concatenate()([age, keras.ops.cast(zone, "float32")])
    return keras.Model([age, zone], [keras.layers.Dense(1, name="price")(joined), keras.layers.Dense(2)(joined)])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with checked_here():
        made = tfmb.export(classifier(), tmp_path_factory.mktemp("saved_models") / "mnist", logits=True)
    assert made is not None
    return made


@pytest.fixture
def serving_api() -> None:
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")


@pytest.mark.usefixtures("serving_api")
def test_warmup_requests_are_the_servers_and_can_be_answered(version: Path) -> None:
    from tensorflow_serving.apis import prediction_log_pb2

    server = Server(version)
    asked = []
    for record in tf.data.TFRecordDataset(str(version / WARMUP_FILE)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert log.SerializeToString(deterministic=True) == record  # nothing in it that the API does not know
        response = server.predict(request)
        asked.append((request.model_spec.name, request.model_spec.signature_name))
        assert set(response.outputs) == {"logits", "probabilities", "class_id"}
    assert asked == [("mnist", "serving_default"), ("mnist", "serve_bytes")] * 2


@pytest.mark.usefixtures("serving_api")
@pytest.mark.parametrize("batch_size", [None, 3])
def test_warmup_of_several_inputs(batch_size: int | None, tmp_path: Path) -> None:
    from tensorflow_serving.apis import prediction_log_pb2

    served = ServedModel(table(), False, batch_size)
    write_warmup(tmp_path, served, "table")
    rows = []
    for record in tf.data.TFRecordDataset(str(tmp_path / WARMUP_FILE)).as_numpy_iterator():
        inputs = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request.inputs
        found = {name: tf.make_ndarray(inputs[name]) for name in inputs}
        rows.append(len(found["age"]))
        for name, value in sample_rows(served.inputs, rows[-1]).items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype == value.dtype
    assert rows == ([1, 8] if batch_size is None else [3])


@pytest.mark.usefixtures("serving_api")
def test_grpc_request_of_the_docs(version: Path, images: np.ndarray) -> None:
    (program,) = re.findall(r"```python\n(import grpc.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {"images": images}
    with grpc_port(Server(version)) as port:
        exec(program.replace("localhost:8500", f"127.0.0.1:{port}"), names)
    np.testing.assert_array_equal(names["class_ids"], classifier()(images).numpy().argmax(-1))


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_rest_request_of_the_docs(version: Path, images: np.ndarray, tmp_path: Path) -> None:
    (command,) = re.findall(r"```bash\n(curl.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "digit.png").write_bytes(tf.io.encode_png(images[0]).numpy())
    with rest_port(Server(version)) as port:
        command = command.replace("localhost:8501", f"127.0.0.1:{port}").replace("curl", "curl --noproxy '*'")
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    (prediction,) = json.loads(done.stdout)["predictions"]
    expected = classifier()(images[:1]).numpy()[0]
    assert prediction["class_id"] == expected.argmax()
    np.testing.assert_allclose(prediction["logits"], expected, atol=1e-6)


@pytest.mark.compile
def test_rest_by_rows_and_by_columns(version: Path, images: np.ndarray, tmp_path: Path) -> None:
    server = Server(version)
    by_rows = server.rest(json.dumps({"instances": images.tolist()}))["predictions"]
    by_columns = server.rest(json.dumps({"inputs": images.tolist()}))["outputs"]
    assert [row["class_id"] for row in by_rows] == by_columns["class_id"]
    np.testing.assert_allclose([row["logits"] for row in by_rows], classifier()(images), atol=1e-6)
    model = table()
    made = tfmb.export(model, tmp_path / "table")
    assert made is not None
    rows = [{"age": [1.0, 2.0, 3.0], "zone": [1, 2]}, {"age": [0.0, 0.5, 1.0], "zone": [3, 4]}]
    answers = Server(made).rest(json.dumps({"instances": rows}))["predictions"]
    assert [sorted(answer) for answer in answers] == [["output_2", "price"]] * 2
    expected = model(
        [np.array([row["age"] for row in rows], np.float32), np.array([row["zone"] for row in rows], np.int32)]
    )
    np.testing.assert_allclose([answer["price"] for answer in answers], expected[0], atol=1e-6)


def test_the_docs_name_every_entry_of_the_record(version: Path) -> None:
    text = DOCS.read_text()
    assert [name for name in check_export(version) if f"`{name}`" not in text] == []
