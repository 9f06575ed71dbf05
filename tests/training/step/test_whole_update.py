"""An update that is not made leaves nothing behind, whoever wrote it; a kill within an epoch keeps the History."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import DivergenceError, PreemptedError
from tfmb.training.session import StopSignals
from tfmb.training.step.written_variables import graph_of, written_in

layers = keras.layers
_random = np.random.default_rng(0)
X, Y = _random.normal(size=(24, 4)).astype("float32"), _random.normal(size=(24, 1)).astype("float32")


class Gauge(keras.layers.Layer):
    """A metric, a seed, a generator and a counter, all of which its call moves."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = keras.metrics.Mean(name="seen")
        self.seed = keras.random.SeedGenerator(3)
        self.calls = tf.Variable(0, trainable=False)
        self.generator = tf.random.Generator.from_seed(1)

    def call(self, inputs: Any) -> Any:
        self.seen.update_state(keras.ops.mean(inputs))
        self.calls.assign_add(1)
        noise = keras.random.normal(keras.ops.shape(inputs), seed=self.seed) + self.generator.normal(tf.shape(inputs))
        return inputs + 0.1 * noise


def build() -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), layers.BatchNormalization(), layers.Dense(3), Gauge(), layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae", keras.metrics.RootMeanSquaredError(name="rmse")])
    return model


def fit(model: Any, x: Any = X, y: Any = Y, **given: Any) -> Any:
    arguments = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0, "jit_compile": False, "seed": 0}
    return tfmb.fit(model, x, y, **{**arguments, **given})


def state_of(model: Any) -> list[Any]:
    gauge = model.layers[2]
    variables = [*model.variables, *model.optimizer.variables, gauge.calls, gauge.generator.state]
    return [np.asarray(v) for v in variables]


@pytest.mark.parametrize("compiled", ["nothing", pytest.param("step", marks=pytest.mark.compile)])
def test_a_batch_that_is_skipped_leaves_the_history_and_the_seeds_of_a_run_without_it(compiled: str) -> None:
    huge = np.concatenate([X[:8], np.full((4, 4), 3e38, "float32"), X[8:]])
    without, skipped = build(), build()
    expected = fit(without, epochs=1, jit_compile=compiled)
    found = fit(
        skipped, huge, np.concatenate([Y[:8], Y[:4], Y[8:]]), epochs=1, jit_compile=compiled, on_divergence="skip"
    )
    assert found.history == expected.history
    for ours, right in zip(state_of(skipped), state_of(without), strict=True):
        np.testing.assert_array_equal(ours, right)


@pytest.mark.compile
def test_a_run_that_diverged_holds_the_state_of_before() -> None:
    huge = np.concatenate([X[:8], np.full((4, 4), 3e38, "float32")])
    diverged, right = build(), build()
    with pytest.raises(DivergenceError):
        fit(diverged, huge, Y[:12], epochs=1)
    fit(right, X[:8], Y[:8], epochs=1)
    for found, expected in zip(state_of(diverged), state_of(right), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_kill_within_an_epoch_ends_with_the_same_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics' totals, seeds, generators and counters of user code are in the checkpoint."""
    whole = build()
    expected = fit(whole, run_dir=tmp_path / "whole", checkpoint_every=2)
    asked = iter([None, None, None, "SIGTERM"])
    monkeypatch.setattr(StopSignals, "reason", lambda self: next(asked, None))
    with pytest.raises(PreemptedError):
        fit(build(), run_dir=tmp_path / "cut", checkpoint_every=2)
    monkeypatch.undo()
    resumed = build()
    found = fit(resumed, run_dir=tmp_path / "cut", checkpoint_every=2, resume=True)
    assert found.history == expected.history
    for ours, right in zip(state_of(resumed), state_of(whole), strict=True):
        np.testing.assert_array_equal(ours, right)


def test_logs_are_kerass_to_the_bit() -> None:
    """Of an epoch in which the weights do not move: the same totals in the same order."""
    theirs, ours = build(), build()
    for model in (theirs, ours):
        model.optimizer.learning_rate = 0.0
    expected = theirs.fit(X, Y, batch_size=5, shuffle=False, verbose=0).history
    assert fit(ours, batch_size=5, epochs=1).history == expected


def test_what_a_function_writes_is_found_through_branches_loops_and_calls() -> None:
    read, branch, loop, called = (tf.Variable(float(i), trainable=False) for i in range(4))
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [2]), 0)
    call = tf.function(lambda: called.assign_add(1.0))

    def function(x: Any) -> Any:
        table.lookup(tf.constant([1]))
        tf.cond(x > read, lambda: branch.assign_add(x), lambda: x)
        tf.while_loop(lambda i: i < 3, lambda i: (loop.assign_add(1.0), i + 1)[1:], [0])
        return call()

    written = written_in(graph_of(function, tf.TensorSpec([])))
    assert [any(found.is_of(v) for found in written) for v in (read, branch, loop, called)] == [False, True, True, True]
    assert len(written) == 3
