"""The parts of an update are timed apart, nothing is changed by it, and the advice fits the worst part."""

from typing import Any

import numpy as np
import pytest
from steps import steps_of

import tfmb
from tfmb.backend import keras
from tfmb.data.batches import Order
from tfmb.data.source import Source
from tfmb.optimizers import Adam
from tfmb.training.execution.profiling import Profile, profile
from tfmb.training.input.array_pipeline import RowsOfBatches, arrays_on_device


@pytest.mark.compile
def test_parts_are_timed_and_nothing_changes(strategy: Any) -> None:
    x = np.random.default_rng(0).normal(size=(200, 20)).astype("float32")
    source = Source.from_arrays(x, (x.sum(1) > 0).astype("int64"))
    with strategy.scope():
        hidden = [keras.layers.Dense(64, "relu"), keras.layers.BatchNormalization(), tfmb.layers.Dropout(0.2)]
        model = keras.Sequential([keras.Input((20,)), *hidden, keras.layers.Dense(2)])
    optimizer = Adam(0.01)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    steps = steps_of(model, optimizer, strategy, loss=loss, metrics=["accuracy"])
    batches = RowsOfBatches(arrays_on_device(source), Order(num_examples=200, batch_size=16, seed=0))
    steps.prepare(batches.element_spec)
    assert bool(steps.update.state) == (strategy.num_replicas_in_sync == 1)  # Keras's own totals
    variables = [*model.variables, *optimizer.variables, *steps.update.state]
    before = [np.asarray(v.numpy()) for v in variables]
    found = profile(steps, batches)
    for a, b in zip(before, variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    assert found.batch_size == 16
    assert all(0 < seconds < 1 for seconds in (found.whole, found.input, found.gradient, found.update))
    assert (found.reduction > 0) == (strategy.num_replicas_in_sync > 1)
    assert sum(found.shares().values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"gradient": 9.0}, "mixed_bfloat16"),
        ({"gradient": 2.0, "update": 5.0}, "--jit-compile update"),
        ({"gradient": 2.0, "input": 5.0}, "arrays in memory"),
        ({"gradient": 2.0, "reduction": 5.0}, "fewer replicas"),
        ({"gradient": 2.0, "whole": 20.0}, "--jit-compile call"),
    ],
)
def test_advice_is_of_the_worst_part(parts: dict[str, float], words: str) -> None:
    given = {"whole": 0.0, "input": 0.0, "reduction": 0.0, "update": 0.0, **parts}
    assert words in Profile(batch_size=1, **given).advice()
