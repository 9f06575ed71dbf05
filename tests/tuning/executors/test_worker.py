"""A worker: which it refuses to be, what it keeps from call to call, and data that it cannot see."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from fake_trials import SLICES, FakeTrainer

from tfmb.errors import ConfigError
from tfmb.tuning.executors import worker
from tfmb.tuning.executors.worker import forget_trainers, run_slice, versions
from tfmb.tuning.trials.slices import SliceTask


def task(**given: Any) -> SliceTask:
    values = {"learning_rate": 0.003, "batch_size": 128}
    kept: dict[str, Any] = {"trial": "0", "values": values, "until": SLICES, "slices": SLICES, "objective": "val_loss"}
    return SliceTask(**{**kept, "versions": versions(), **given})


@pytest.mark.parametrize("name", ["tfmb", "tensorflow", "keras", "keras-tuner", "numpy"])
def test_a_worker_with_another_version_is_refused_by_name(name: str) -> None:
    here = versions()
    words = rf"^a worker on .* has {name} {here[name]}, and the search 0.0.1: install the same versions$"
    with pytest.raises(ConfigError, match=words):
        run_slice(Path("nowhere"), task(search="other", versions={**here, name: "0.0.1"}))


def test_a_worker_fetches_the_data_of_a_search_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def trainer_of(shared: str) -> FakeTrainer:
        loaded.append(shared)
        return FakeTrainer()

    monkeypatch.setattr(worker, "Trainer", trainer_of)
    try:
        for name in ("one", "one", "one", "two", "two", "one"):
            (tmp_path / name).write_bytes(pickle.dumps(name))
            assert run_slice(tmp_path / name, task(search=name)).fate is None
    finally:
        forget_trainers()
    assert loaded == ["one", "two", "one"]  # of one search at a time


def test_a_worker_that_does_not_see_the_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*gone \(No such file or directory\): give a run_dir that all"):
        run_slice(tmp_path / "gone", task(search="x"))
