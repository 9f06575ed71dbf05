"""Settings that decide bits: TensorFloat-32 is off where exactness is asked for, and stands in the record."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.runs.numerics import numerics


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    tf.config.experimental.enable_tensor_float_32_execution(True)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(True)


def recorded(run_dir: Path, **arguments: Any) -> dict[str, Any]:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    x = np.ones((4, 2), "float32")
    tfmb.fit(model, x, x[:, :1], optimizer="sgd", loss="mse", verbose=0, run_dir=run_dir, **arguments)
    found: dict[str, Any] = json.loads((run_dir / "run.json").read_text())["numerics"]
    return found


@pytest.mark.compile
def test_tensor_float_32_is_off_where_exactness_is_asked_for(tmp_path: Path) -> None:
    assert recorded(tmp_path / "fast")["tensor_float_32"] is True
    assert recorded(tmp_path / "exact", virtual_replicas=2)["tensor_float_32"] is False
    assert tf.config.experimental.tensor_float_32_execution_enabled() is False


def test_record_names_what_decides_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    found = numerics()
    assert found["onednn"] == "0"
    assert found["op_determinism"] is False
    assert set(found) == {
        "op_determinism",
        "tensor_float_32",
        "onednn",
        "intra_op_threads",
        "inter_op_threads",
        "cores",
        "processor",
    }
    assert found["cores"] >= 1
