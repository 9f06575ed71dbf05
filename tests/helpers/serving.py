"""A stand-in for TensorFlow Serving: its REST and gRPC requests, answered by the SavedModel's graph in a session."""

import base64
import json
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from tfmb.backend import tf

__all__ = ["Server", "grpc_port", "rest_port"]


class Server:
    """One version of a model, fed and fetched by the names in its signatures: no Python of it is known."""

    def __init__(self, version: Path) -> None:
        self.graph = tf.Graph()
        self.session = tf.compat.v1.Session(graph=self.graph)
        with self.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self.session, ["serve"], str(version))
        self.signatures = loaded.signature_def

    def run(self, signature: str, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        about = self.signatures[signature]
        assert set(inputs) == set(about.inputs)
        feeds = {about.inputs[name].name: value for name, value in inputs.items()}
        return dict(self.session.run({name: info.name for name, info in about.outputs.items()}, feeds))

    def predict(self, request: Any) -> Any:
        """PredictRequest -> PredictResponse."""
        from tensorflow_serving.apis import predict_pb2

        signature = request.model_spec.signature_name or "serving_default"
        answer = self.run(signature, {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()})
        response = predict_pb2.PredictResponse()
        for name, value in answer.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    def rest(self, text: str) -> dict[str, Any]:
        """The body of a POST to `/v1/models/NAME:predict` -> that of the answer, as the server's documents say."""
        body = json.loads(text)
        signature = body.get("signature_name", "serving_default")
        about = self.signatures[signature].inputs
        if "instances" in body:  # row by row: an object of inputs by name, or the only input itself
            rows = body["instances"]
            named = [
                row if isinstance(row, dict) and set(row) == set(about) else {next(iter(about)): row} for row in rows
            ]
            columns = {name: [row[name] for row in named] for name in about}
        else:
            columns = body["inputs"] if len(about) > 1 else {next(iter(about)): body["inputs"]}
        inputs = {name: _array(columns[name], about[name]) for name in about}
        answer = {name: value.tolist() for name, value in self.run(signature, inputs).items()}
        if "instances" not in body:
            return {"outputs": answer if len(answer) > 1 else next(iter(answer.values()))}
        count = len(body["instances"])
        assert all(len(values) == count for values in answer.values())  # else the server refuses this form
        if len(answer) == 1:
            return {"predictions": next(iter(answer.values()))}
        return {"predictions": [{name: values[row] for name, values in answer.items()} for row in range(count)]}


def _array(values: Any, info: Any) -> np.ndarray:
    dtype = tf.as_dtype(info.dtype)
    if dtype == tf.string:
        return np.array([base64.b64decode(v["b64"]) if isinstance(v, dict) else v.encode() for v in values], object)
    return np.array(values, dtype.as_numpy_dtype)


@contextmanager
def grpc_port(server: Server) -> Iterator[int]:
    """A port of this host where a PredictionService answers."""
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - the API's name
            return server.predict(request)

    listening = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), listening)
    port = listening.add_insecure_port("127.0.0.1:0")
    listening.start()
    try:
        yield port
    finally:
        listening.stop(None).wait()


@contextmanager
def rest_port(server: Server) -> Iterator[int]:
    """A port of this host where the REST API answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/models/mnist:predict"
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            answer = json.dumps(server.rest(body)).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield listening.server_port
        finally:
            listening.shutdown()
            thread.join()
