"""What the averages took the place of is kept: in a run's directory, and for the model that was trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras
from tfmb.errors import DataError
from tfmb.runs.run_dir import RAW_WEIGHTS_FILE, hash_of_raw_weights, hash_weights, load_weights
from tfmb.serving.weights import exported_weights
from tfmb.training.session import Session

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = X @ np.array([[1.0], [2.0], [3.0]], np.float32)


def train(run_dir: Path, **options: Any) -> Any:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
    optimizer = tfmb.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    tfmb.fit(
        model, X, Y, optimizer=optimizer, loss="mse", seed=0, epochs=2, batch_size=4, verbose=0, run_dir=run_dir,
        **options,
    )  # fmt: skip
    return model


def raw_of(model: Any) -> list[Any]:
    with exported_weights(model, "raw"):
        return [v.numpy() for v in model.trainable_variables]


def test_a_run_keeps_them_and_gives_them_back(tmp_path: Path) -> None:
    model = train(tmp_path / "run")
    checksum = json.loads((tmp_path / "run" / "run.json").read_text())["raw_weights_sha256"]
    assert checksum == hash_weights(raw_of(model)) == hash_of_raw_weights(tmp_path / "run")
    recalled = train(tmp_path / "run", resume=True)
    assert hash_weights(raw_of(recalled)) == checksum
    content = bytearray((tmp_path / "run" / RAW_WEIGHTS_FILE).read_bytes())
    content[-200] ^= 1
    (tmp_path / "run" / RAW_WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(DataError, match=RAW_WEIGHTS_FILE):
        load_weights(tmp_path / "run", checksum, RAW_WEIGHTS_FILE)


def test_they_outlive_a_process_that_ended_before_its_result_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = hash_weights(raw_of(train(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        patch.setattr(Session, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run")
    train(tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["raw_weights_sha256"] == expected


def test_a_run_without_averages_keeps_none(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    tfmb.fit(model, X, Y, optimizer="sgd", loss="mse", verbose=0, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / RAW_WEIGHTS_FILE).exists()
    assert "raw_weights_sha256" not in json.loads((tmp_path / "run" / "run.json").read_text())
