"""The one place that imports TensorFlow and Keras, after checking that they are the ones tfmb is built on."""

import os

from tfmb.errors import ConfigError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in {"1", "true"}:
    raise ConfigError("tfmb needs Keras 3, not legacy tf_keras: unset TF_USE_LEGACY_KERAS")
if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    raise ConfigError(f"tfmb needs Keras's TensorFlow backend: unset KERAS_BACKEND={os.environ['KERAS_BACKEND']!r}")

# Keras fixes its backend, and TensorFlow its log level, when they are imported.
import keras
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

if keras.config.backend() != "tensorflow":
    raise ConfigError(
        f"tfmb needs Keras's TensorFlow backend, not {keras.config.backend()!r}: "
        "set KERAS_BACKEND=tensorflow, or change it in ~/.keras/keras.json"
    )

__all__ = ["keras", "tf", "xla"]
