"""Searches over rates from 1e-4 to 1e2 on MNIST: none is aborted, and what they find is what a grid finds."""

from pathlib import Path
from typing import Any

import pytest

import tfmb
from tfmb import models
from tfmb.backend import keras
from tfmb.data import load
from tfmb.tuning.oracles.make import ORACLES

TRIALS = 30
RATES = [10 ** (exponent / 3) for exponent in range(-12, 7)]  # 1e-4 to 1e2, three a decade


@pytest.fixture(scope="module")
def searched(mnist_mirror: Path) -> Any:
    splits = load("mnist", mnist_mirror)
    train, validation = splits.train.rows(slice(0, 20_000)), splits.train.rows(slice(50_000, 55_000))

    def build(hp: Any) -> Any:
        bare = models.mlp((28, 28, 1), 10, seed=0)
        return models.with_preprocessing(bare, (28, 28, 1), splits.normalization)

    def search(oracle: str, rates: Any, trials: int) -> Any:
        return tfmb.tune(
            build,
            train.examples,
            train.labels,
            validation_data=(validation.examples, validation.labels),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            max_trials=trials,
            oracle=oracle,
            batch_size=64,
            learning_rate=rates,
            seed=0,
        )

    return search, search("grid", RATES, 100)


@pytest.mark.mnist
@pytest.mark.parametrize("oracle", ORACLES)
def test_every_oracle_ends_and_finds_the_grids_rate(oracle: str, searched: Any) -> None:
    search, grid = searched
    right = grid.best.values["learning_rate"]
    result = grid if oracle == "grid" else search(oracle, (1e-4, 1e2), TRIALS)
    fates = [trial.fate for trial in result.trials]
    assert len(fates) == (len(RATES) if oracle == "grid" else TRIALS)
    assert "diverged" in fates
    assert right / 3 <= result.best.values["learning_rate"] <= right * 3
    if oracle == "bayesian":
        assert fates[10:].count("completed") >= len(fates[10:]) / 2


@pytest.mark.mnist
def test_memory_does_not_grow_over_200_trials(searched: Any) -> None:
    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    search, _ = searched
    search("random", (1e-4, 1e-1), 20)
    before = resident()
    search("random", (1e-4, 1e-1), 200)
    assert resident() - before < 100
