"""The first epoch's rate is that of its updates: what traced and compiled is told apart."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras
from tfmb.training.loop.reports import EpochReport, UpdatesReport
from tfmb.training.session import Session

X = np.random.default_rng(0).normal(size=(70, 4)).astype("float32")
Y = np.arange(70) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Calls:
    """Keeps the reports."""

    def __init__(self) -> None:
        self.reports: list[UpdatesReport] = []

    def updates_made(self, report: UpdatesReport) -> None:
        self.reports.append(report)

    def epoch_ended(self, report: EpochReport) -> None:
        pass


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the loop reports of every training of a test."""
    kept = Calls()
    monkeypatch.setattr(Session, "_logs", lambda self, tracing_seconds: [kept])
    return kept


def traced(calls: Calls) -> list[tuple[int, int]]:
    """(epoch, step) of the calls that traced or compiled; the list is emptied."""
    found = [(report.epoch + 1, report.step) for report in calls.reports if report.traced]
    calls.reports.clear()
    return found


def model() -> Any:
    return tfmb.models.mlp((4,), 3, seed=1)


def fit(model: Any, *data: Any, **more: Any) -> None:
    data = data or (X, Y)
    size = 16 if len(data) == 2 else None
    given = {"batch_size": size, "loss": LOSS, "optimizer": "sgd", "seed": 0, "verbose": 0, **more}
    tfmb.fit(model, *data, **given)


def test_only_the_first_call_traces_and_a_second_training_none(calls: Calls) -> None:
    one = model()
    fit(one, epochs=2)  # the last batch of an epoch is smaller
    assert traced(calls) == [(1, 1)]
    fit(one, epochs=2)
    assert traced(calls) == []


def test_a_dataset_of_another_shape_traces_again(calls: Calls) -> None:
    from tfmb.backend import tf

    one = model()
    fit(one, tf.data.Dataset.from_tensor_slices((X, Y)).batch(10, drop_remainder=True), epochs=2)
    fit(one, tf.data.Dataset.from_tensor_slices((X, Y)).batch(16))
    assert traced(calls) == [(1, 1), (1, 1)]


@pytest.mark.compile
@pytest.mark.parametrize("compiled", ["call", "step", True])
def test_xla_compiles_once_more_for_the_smaller_last_batch(compiled: Any, calls: Calls) -> None:
    one = model()
    fit(one, epochs=3, jit_compile=compiled)
    assert traced(calls) == [(1, 1), (1, 5)]
    fit(one, epochs=1, jit_compile=compiled)
    assert traced(calls) == []


@pytest.mark.compile
def test_xla_compiles_a_dataset_of_two_sizes_twice_and_static_shapes_once(calls: Calls) -> None:
    from tfmb.backend import tf

    fit(model(), tf.data.Dataset.from_tensor_slices((X, Y)).batch(16), epochs=2, jit_compile=True)
    assert traced(calls) == [(1, 1), (1, 5)]
    fit(model(), epochs=2, jit_compile=True, pad_batches=True)
    assert traced(calls) == [(1, 1)]


@pytest.mark.parametrize("examples", [3200, 12_800], ids=["untried", "tried out before"])
def test_the_first_epoch_is_as_fast_as_the_second(
    examples: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    x, y = np.random.default_rng(0).normal(size=(examples, 4)).astype("float32"), np.arange(examples) % 3
    tfmb.fit(model(), x, y, 64, 2, loss=LOSS, optimizer="sgd", seed=0, verbose=2, run_dir=tmp_path / "run")
    first, second = (line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch"))
    rates = [
        float(found[1].replace(",", ""))
        for found in map(re.compile(r"([\d,]+) examples/s").search, (first, second))
        if found
    ]
    # With the tracing of more than half a second in it, it would be a tenth or less.
    assert rates[0] > rates[1] / 5
    assert re.search(r"tracing and compiling took \d+\.\d s$", first)
    assert "tracing" not in second
    lines = [json.loads(line) for line in (tmp_path / "run" / "timings.jsonl").read_text().splitlines()]
    assert [line["tracing_seconds"] > 0 for line in lines] == [True, *[False] * (len(lines) - 1)]


def test_a_step_is_traced_once_more_than_in_keras() -> None:
    class Counted(keras.Model):
        def train_step(self, data: Any) -> Any:
            drawn.append(data)
            return super().train_step(data)

    counts = []
    for fit in (keras.Model.fit, tfmb.fit):
        drawn: list[Any] = []
        inputs = keras.Input((4,))
        model = Counted(inputs, keras.layers.Dense(1)(inputs))
        model.compile("adam", "mse")
        fit(model, np.ones((8, 4)), np.ones((8, 1)), batch_size=4, epochs=2, verbose=0)
        counts.append(len(drawn))
    assert counts[1] == counts[0] + 1
