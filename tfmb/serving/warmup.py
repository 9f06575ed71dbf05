"""The requests that TensorFlow Serving answers for itself before it serves a new version.

They are `PredictionLog` messages of its API in a TFRecord file. Their wire format is written here by hand around
TensorFlow's own `TensorProto`: the package that has these messages is not needed to export.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tfmb.backend import tf
from tfmb.serving.provenance import EXTRAS
from tfmb.serving.run_saved_model import sample_rows
from tfmb.serving.signatures import ServedModel, image_shape

__all__ = ["WARMUP_FILE", "write_warmup"]

WARMUP_FILE = f"{EXTRAS}/tf_serving_warmup_requests"
_BATCHES = (1, 8)  # where a request may have any number of rows

# Fields of tensorflow_serving/apis: PredictionLog.predict_log, PredictLog.request, PredictRequest.model_spec and
# .inputs (a map: entries with key and value), ModelSpec.name and .signature_name.
_PREDICT_LOG, _REQUEST, _MODEL_SPEC, _INPUTS, _KEY, _VALUE, _NAME, _SIGNATURE_NAME = 6, 1, 1, 2, 1, 2, 1, 3
_LENGTH_DELIMITED = 2


def write_warmup(folder: Path, served: ServedModel, name: str) -> None:
    """Writes a request for every signature, of made-up rows, one at a time and several.

    Args:
        folder: the version's.
        served: the signatures to ask.
        name: the model's, as it will be served.

    Raises:
        OSError: the disk is full or fails.
    """
    (folder / EXTRAS).mkdir(exist_ok=True)
    fixed = next(iter(served.inputs.values())).shape[0]
    with tf.io.TFRecordWriter(str(folder / WARMUP_FILE)) as file:
        for rows in _BATCHES if fixed is None else (fixed,):
            file.write(_prediction_log(name, "serving_default", sample_rows(served.inputs, rows)))
            if "serve_bytes" in served.signatures:
                shape = image_shape(served.inputs)
                image = tf.io.encode_png(tf.zeros(shape, tf.uint8)).numpy()
                file.write(_prediction_log(name, "serve_bytes", {"image_bytes": np.array([image] * rows, object)}))


def _prediction_log(name: str, signature: str, inputs: dict[str, Any]) -> bytes:
    model_spec = _field(_NAME, name.encode()) + _field(_SIGNATURE_NAME, signature.encode())
    request = _field(_MODEL_SPEC, model_spec)
    for key, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(_INPUTS, _field(_KEY, key.encode()) + _field(_VALUE, tensor))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, text or a message: tag, length, content."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
