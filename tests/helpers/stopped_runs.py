"""Runs that end after so many batches, what they are made of, and what they must come to when they go on."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb import optimizers
from tfmb.backend import keras
from tfmb.errors import PreemptedError
from tfmb.optimizers import SGD, Adam, RMSprop
from tfmb.training.checkpoint.checkpointer import Checkpointer
from tfmb.training.loop.plan import LoopState

layers = keras.layers
ROWS, BATCH_SIZE, EPOCHS = 26, 8, 2
BATCHES = 4  # of an epoch, the last one of two rows
X = np.random.default_rng(0).normal(size=(ROWS, 6)).astype("float32")
Y = (X.sum(1) > 0).astype("int64")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def build(stock: bool = True) -> Any:
    """A model with statistics and dropout of ours, and `stock` of Keras's, which has a seed state."""
    keras.utils.set_random_seed(1)  # for the seed states, which Keras draws
    init = [keras.initializers.GlorotUniform(seed) for seed in (1, 2)]
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, "relu", kernel_initializer=init[0]),
            layers.BatchNormalization(),
            tfmb.layers.Dropout(0.3),
            *([layers.Dropout(0.2, seed=4)] if stock else []),
            layers.Dense(2, kernel_initializer=init[1]),
        ]
    )


class StopAfter:
    """Asks every run to end after so many batches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: int | None = None
        visit, most = Checkpointer.visit, Checkpointer.most

        def visit_and_stop(keeper: Checkpointer, position: LoopState) -> None:
            keeper.stop = lambda: "stopped" if position.drawn == self.batches else None
            visit(keeper, position)

        def most_before(keeper: Checkpointer, position: LoopState) -> int | None:
            left = most(keeper, position)
            assert left is not None
            return left if self.batches is None else min(left, max(self.batches - position.drawn, 1))

        monkeypatch.setattr(Checkpointer, "visit", visit_and_stop)
        monkeypatch.setattr(Checkpointer, "most", most_before)


def fit(run_dir: Path, make: Callable[[], Any], build: Any = build, **arguments: Any) -> tuple[Any, Any]:
    """(History, optimizer) of a run."""
    optimizer = make()
    given: dict[str, Any] = {"batch_size": BATCH_SIZE, "epochs": EPOCHS, "seed": 3, "verbose": 0, "loss": LOSS}
    given |= {"checkpoint_every": 3, "metrics": ["accuracy"], "validation_data": (X[:5], Y[:5]), **arguments}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(normalise by the statistics|draw random numbers)")
        return tfmb.fit(build, X, Y, optimizer=optimizer, run_dir=run_dir, **given), optimizer


def state_of(run: tuple[Any, Any]) -> list[np.ndarray]:
    history, optimizer = run
    values = [v.value for v in history.model.variables] + list(optimizer.variables)
    return [copy.numpy() for v in values for copy in getattr(v, "values", [v])]


def assert_same(found: tuple[Any, Any], expected: tuple[Any, Any], folders: tuple[Path, Path]) -> None:
    for a, b in zip(state_of(found), state_of(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[0].history == expected[0].history
    assert found[0].epoch == expected[0].epoch
    logs = [(folder / "metrics.jsonl").read_bytes() for folder in folders]
    assert logs[0] == logs[1]
    records = [json.loads((folder / "run.json").read_text()) for folder in folders]
    assert records[0]["weights_sha256"] == records[1]["weights_sha256"]


RULES: dict[str, Callable[[], Any]] = {
    "adam": lambda: Adam(0.01, use_ema=True, ema_momentum=0.9),
    "momentum": lambda: SGD(0.05, momentum=0.9, global_clipnorm=0.5),
    "rmsprop": lambda: RMSprop(0.01, momentum=0.5, centered=True),
    "schedule": lambda: Adam(optimizers.schedules.Cosine(0.01, 8)),
    "keras": lambda: keras.optimizers.Lion(0.01),
}


def check_every_stop(folder: Path, stop: StopAfter, rule: str, replicas: int) -> None:
    """Asserts that a run goes on from each update of its two epochs to the end of one that never stopped."""
    whole = fit(folder / "whole", RULES[rule], devices=replicas)
    for batches in range(EPOCHS * BATCHES):
        stop.batches = batches
        run = folder / f"stopped-{batches}"
        with pytest.raises(PreemptedError, match=rf"stopped after {batches} batches.*--resume"):
            fit(run, RULES[rule], devices=replicas)
        assert json.loads((run / "run.json").read_text())["status"] == "preempted"
        stop.batches = None
        assert_same(fit(run, RULES[rule], devices=replicas, resume=True), whole, (run, folder / "whole"))


def check_other_devices(
    folder: Path, stop: StopAfter, parts: dict[str, int], moves: Sequence[tuple[int, int, int]]
) -> None:
    """Asserts that runs cut into parts end with the same bits though they go on with other numbers of devices.

    Args:
        parts: how `fit` cuts batches.
        moves: (replicas before, replicas after, batches after which they change) of each run.
    """
    given: dict[str, Any] = {"build": lambda: build(stock=False), **parts}
    whole = fit(folder / "whole", RULES["adam"], **given)
    for number, (before, after, batches) in enumerate(moves):
        run = folder / str(number)
        stop.batches = batches
        with pytest.raises(PreemptedError):
            fit(run, RULES["adam"], devices=before, **given)
        stop.batches = None
        resumed = fit(run, RULES["adam"], devices=after, resume=True, **given)
        assert_same_values(resumed, whole)


def assert_same_values(found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    """Asserts that two runs' weights and slots, read as users read them, have the same bits."""
    for a, b in zip(*map(_values, (found, expected)), strict=True):
        np.testing.assert_array_equal(a, b)


def _values(run: tuple[Any, Any]) -> list[np.ndarray]:
    history, optimizer = run
    return [np.asarray(v.numpy()) for v in (*history.model.weights, *optimizer.variables)]
