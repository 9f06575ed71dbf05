"""Rates that Keras cannot describe are trained with all the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import here

import tfmb
from tfmb.backend import keras, tf
from tfmb.optimizers.keras_config import config_of, copy_of

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = X.sum(1, keepdims=True)


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule as published scripts write it: without `get_config`."""

    def __call__(self, step: Any) -> Any:
        return 0.01 * 0.5 ** tf.cast(step, "float32")


def test_what_a_rate_hides_is_left_out() -> None:
    optimizer = keras.optimizers.Adam(Halving(), beta_1=0.8)
    config = config_of(optimizer)
    assert config["beta_1"] == 0.8
    assert "learning_rate" not in config
    assert isinstance(optimizer._learning_rate, Halving)
    assert config_of(keras.optimizers.Adam(0.5))["learning_rate"] == 0.5
    copy = copy_of(optimizer)
    assert (copy.beta_1, copy._learning_rate) == (0.8, optimizer._learning_rate)


@pytest.mark.parametrize(
    "kind", here([keras.optimizers.Adam, keras.optimizers.Nadam], [keras.optimizers.Nadam], "slow")
)
@pytest.mark.parametrize("rate", [Halving, lambda: lambda: 0.01], ids=["schedule", "function"])
def test_fit_takes_such_a_rate(kind: Any, rate: Any, tmp_path: Path) -> None:
    def trained(fit: Any) -> Any:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(kind(rate()), "mse", jit_compile=False)
        return fit(model, X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]

    expected = trained(keras.Model.fit)
    np.testing.assert_allclose(trained(tfmb.fit), expected, rtol=1e-5)
    recorded = trained(lambda *args, **options: tfmb.fit(*args, **options, run_dir=tmp_path / "run"))
    np.testing.assert_allclose(recorded, expected, rtol=1e-5)
