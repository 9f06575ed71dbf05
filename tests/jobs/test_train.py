"""`train_job` and `restore_run`: what was trained is what is read back, whatever the precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import here

from tfmb.backend import keras
from tfmb.jobs import build
from tfmb.jobs import train as train_jobs
from tfmb.jobs.config import TrainConfig
from tfmb.jobs.restore import restore_run


def train(folder: Path, **options: Any) -> dict[str, Any]:
    config = TrainConfig(dataset="digits", epochs=1, **options)
    return train_jobs.train_job(config, lambda name: folder, lambda line: None, verbose=0)


@pytest.mark.compile
@pytest.mark.parametrize("precision", ["float32", "float64", "mixed_bfloat16"])
@pytest.mark.parametrize("model", here(["mlp", "cnn"], ["mlp"]))
def test_a_run_is_scored_again_in_its_own_precision(precision: str, model: str, tmp_path: Path) -> None:
    before = keras.config.dtype_policy().name
    result = train(tmp_path, precision=precision, model=model)
    assert keras.config.dtype_policy().name == before
    run = restore_run(tmp_path)
    assert keras.config.dtype_policy().name == before
    assert run.model.layers[-1].dtype_policy.name == precision
    test = run.splits().test
    assert test is not None
    logs = train_jobs.score(run.model, build.loss_and_metrics_of(run.model, run.config), test)
    assert logs["loss"] == pytest.approx(result["test_loss"], rel=1e-6)
    assert train_jobs.accuracy_of(logs) == result["test_accuracy"]


@pytest.mark.compile
def test_logits_are_no_less_than_float32(tmp_path: Path) -> None:
    train(tmp_path, precision="mixed_bfloat16", model="mlp")
    run = restore_run(tmp_path)
    assert run.model(np.zeros((1, 28, 28, 1), np.uint8)).dtype == "float32"
