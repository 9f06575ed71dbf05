"""What XLA compiles changes no answer, and what it cannot compile is refused."""

from typing import Any

import numpy as np
import pytest
from small_fits import LOSS, X, Y, build, fit

import tfmb
from tfmb.backend import keras, tf
from tfmb.choices import JitScope
from tfmb.errors import ConfigError, DataError
from tfmb.optimizers import SGD
from tfmb.training.execution import jit_trial
from tfmb.training.execution.jit_trial import ExecutionPlan

layers = keras.layers


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("compiled", [c.value for c in JitScope if c is not JitScope.NOTHING])
def test_answer_is_that_of_tensorflows_kernels(compiled: str) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)  # made here: it computes in 64 bits, too
    expected, found = fit("nothing", loss=loss), fit(compiled, loss=loss)
    for a, b in zip(found[0].model.get_weights(), expected[0].model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)
    for key, values in expected[0].history.items():
        np.testing.assert_allclose(found[0].history[key], values, rtol=0, atol=1e-11)


@pytest.mark.compile
@pytest.mark.parametrize("compiled", ["update", "step", "call"])
def test_update_that_is_not_finite_is_never_made(compiled: str) -> None:
    x = X.astype("float32").copy()
    x[20:22] = 3e38  # of which any sum overflows
    given: dict[str, Any] = {"shuffle": False, "epochs": 1, "on_divergence": "skip"}
    expected, found = fit("nothing", x=x, **given), fit(compiled, x=x, **given)
    assert int(found[1].iterations.numpy()) == 5
    for a, b in zip(found[0].model.get_weights(), expected[0].model.get_weights(), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.compile
@pytest.mark.parametrize("compiled", ["update", "step", "call"])
def test_large_gradients_are_finite(compiled: str) -> None:
    def run(jit_compile: str) -> Any:
        model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="ones")])
        x = np.full((4, 1), 1e15, "float32")
        tfmb.fit(
            model, x, 0 * x, 4, verbose=0, optimizer=SGD(1e-31), loss="mse", jit_compile=jit_compile, shuffle=False
        )
        return model.get_weights()[0]

    np.testing.assert_allclose(run(compiled), run("nothing"), rtol=1e-6)
    assert run(compiled) != 1.0


@pytest.mark.parametrize("compiled", ["nothing", "step", "call"])
def test_weights_without_axes_are_trained(compiled: str) -> None:
    class Scale(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.factor = self.add_weight(shape=(), initializer="ones")

        def call(self, x: Any) -> Any:
            return x * self.factor

    model = keras.Sequential([keras.Input((1,)), Scale()])
    x = np.ones((8, 1), "float32")
    tfmb.fit(model, x, 3 * x, 4, verbose=0, optimizer=SGD(0.1), loss="mse", jit_compile=compiled, seed=0)
    assert model.get_weights()[0] == pytest.approx(1.72)  # 1 + 0.1 * 2 * 2, then + 0.1 * 2 * 1.6


@pytest.mark.compile
@pytest.mark.parametrize("compiled", ["nothing", "step", "call"])
def test_second_training_may_have_other_data(compiled: str) -> None:
    model, optimizer = keras.Sequential([keras.Input((6,)), layers.Dense(1)]), SGD(0.1)
    given: dict[str, Any] = {"verbose": 0, "optimizer": optimizer, "loss": "mse", "jit_compile": compiled, "seed": 0}
    for x, weight in ((X.astype("float32"), None), (X.astype("float32"), np.ones(43)), ((9 * X).astype("int32"), None)):
        tfmb.fit(model, x, X[:, :1].astype("float32"), 8, sample_weight=weight, **given)
    assert int(optimizer.iterations.numpy()) == 18


@pytest.mark.compile
def test_another_seed_has_other_masks_without_another_trace() -> None:
    def run(*seeds: int) -> tuple[Any, Any]:
        model, optimizer = build(), SGD(0.1)
        weights = model.get_weights()
        for seed in seeds:
            model.set_weights(weights)
            tfmb.fit(model, X, Y, 43, verbose=0, optimizer=optimizer, loss=LOSS, seed=seed, jit_compile=False)
            optimizer.iterations.assign(0)
        return model.get_weights(), model._tfmb_steps[-1]

    (after, steps), (alone, _), (other, _) = run(1, 2), run(2), run(1)
    assert steps._rows.experimental_get_tracing_count() == 1
    for a, b in zip(after, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert np.abs(alone[0] - other[0]).max() > 1e-3


@pytest.mark.parametrize("record", [None, {}, {"compiled": 3}, {"compiled": "x"}, []])
def test_damaged_record_is_refused(record: Any) -> None:
    with pytest.raises(DataError, match="does not say what XLA compiled"):
        jit_trial.recorded_jit_scope(record)


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"jit_compile='fast' must be True, False, 'auto'"):
        fit("fast")


@pytest.mark.parametrize(
    ("compiled", "given", "words"),
    [
        ("step", {"devices": 2}, "needs whole batches on one device"),
        ("step", {"virtual_replicas": 1}, "needs whole batches on one device"),
        ("call", {"micro_batch_size": 4}, "needs whole batches on one device"),
        ("call", {"pad_batches": True}, "needs arrays, without augmentation or static shapes"),
        ("update", {"optimizer": keras.optimizers.Lion(0.01)}, "needs one of tfmb.optimizers"),
        ("step", {"optimizer": keras.optimizers.Lion(0.01)}, "needs one of tfmb.optimizers"),
    ],
)
def test_what_cannot_be_compiled_is_refused(compiled: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"jit_compile='{compiled}' {words}"):
        fit(compiled, **given)


@pytest.mark.compile
def test_calls_of_a_dataset_are_refused_and_steps_are_not() -> None:
    data = tf.data.Dataset.from_tensor_slices((X.astype("float32"), Y)).batch(8)
    given: dict[str, Any] = {"optimizer": "adam", "loss": LOSS, "verbose": 0, "seed": 0}
    with pytest.raises(ConfigError, match="jit_compile='call' needs arrays"):
        tfmb.fit(build, data, jit_compile="call", **given)
    found = [tfmb.fit(build, data, jit_compile=jit, **given).model.get_weights() for jit in ("step", "nothing")]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_words() -> None:
    assert str(ExecutionPlan()) == "XLA compiles nothing"
    found = ExecutionPlan(compiled=JitScope.UPDATE, seconds={"nothing": 0.002, "update": 0.0015})
    assert str(found) == "XLA compiles the optimizer's update (measured, an update: nothing 2 ms, update 1.5 ms)"
