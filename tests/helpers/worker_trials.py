"""What worker processes of the tests run, found by name."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.backend import keras

layers = keras.layers
_random = np.random.default_rng(0)
X = _random.normal(size=(80, 5)).astype("float32")
Y = (X.sum(1) > 0).astype("int64")
TUNE: dict[str, Any] = {
    "max_trials": 6,
    "oracle": "random",
    "batch_size": [8, 16],
    "learning_rate": (1e-3, 1.0),
    "seed": 1,
}
# A file that a test makes, or expects.
MARK = "TFMB_TEST_MARK"


def build(hp: Any) -> Any:
    model = keras.Sequential([keras.Input((5,)), layers.Dense(hp.Choice("units", [4, 8]), "relu"), layers.Dense(2)])
    model.compile(None, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def build_plain(hp: Any) -> Any:
    return keras.Sequential([keras.Input((5,)), layers.Dense(4, "relu"), layers.Dense(2)])


def build_pair(hp: Any) -> Any:
    """Of two inputs."""
    first, second = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    return keras.Model({"a": first, "b": second}, layers.Dense(2)(layers.Add()([first, second])))


def in_worker() -> bool:
    return "pytest" not in sys.modules


def build_broken(hp: Any) -> Any:
    if in_worker():
        raise KeyError("my bug")
    return build(hp)


def build_dies_once(hp: Any) -> Any:
    """The first worker process that builds a model dies, as if for want of memory."""
    if in_worker():
        try:
            Path(os.environ[MARK]).open("x").close()
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return build(hp)


def build_hangs_once(hp: Any) -> Any:
    """The first worker process that builds a model never does."""
    if in_worker():
        with contextlib.suppress(FileExistsError):
            Path(os.environ[MARK]).open("x").close()
            time.sleep(1e6)
    return build(hp)


def build_dies(hp: Any) -> Any:
    if in_worker():
        os.kill(os.getpid(), signal.SIGKILL)
    return build(hp)


def build_out_of_memory(hp: Any) -> Any:
    if in_worker():
        raise MemoryError("no room")
    return build(hp)
