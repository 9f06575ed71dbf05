"""What is done about a loss that is not finite: stop, leave the batch out, or go back at half the rate."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.errors import ConfigError, DivergenceError
from tfmb.optimizers import SGD

X = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
Y = X[:, :1] * 2.0
BAD = 7.0  # a target for which the loss is NaN


def build() -> Any:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer=keras.initializers.Ones())])


def loss(y: Any, y_pred: Any) -> Any:
    """Squared error, and NaN for bad targets."""
    return tf.where(y[:, 0] == BAD, np.nan, tf.reduce_mean(tf.square(y - y_pred), -1))


def fit(x: Any = X, y: Any = Y, rate: float = 0.05, **arguments: Any) -> Any:
    given: dict[str, Any] = {"batch_size": 4, "epochs": 2, "optimizer": SGD(rate), "loss": loss, "seed": 0}
    return tfmb.fit(build, x, y, shuffle=False, verbose=0, **{**given, **arguments})


def with_bad(*batches: int) -> np.ndarray:
    y = Y.copy()
    for batch in batches:
        y[4 * batch + 1] = BAD
    return y


@pytest.mark.parametrize("replicas", [1, 2], ids=["1 replica", "2 replicas"])
def test_skipped_batch_is_as_if_it_had_not_been_there(tmp_path: Path, replicas: int) -> None:
    kept = np.r_[0:8, 12:24]
    expected = fit(X[kept], Y[kept], devices=replicas)
    found = fit(y=with_bad(2), on_divergence="skip", run_dir=tmp_path / "run", devices=replicas)
    for a, b in zip(found.model.get_weights(), expected.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.history == expected.history
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["not_finite"] == {"skipped_updates": 2, "restored": 0}


def test_skipped_batches_are_counted_in_the_log(tmp_path: Path) -> None:
    fit(y=with_bad(0, 2, 3), on_divergence="skip", run_dir=tmp_path / "run", epochs=17, batch_size=4)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines if "accuracy" not in line][-1] == 3 * 17
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)


def test_more_than_ten_in_a_row_end_the_run() -> None:
    with pytest.raises(DivergenceError):
        fit(y=with_bad(*range(6)), on_divergence="skip")


def test_stopping_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match=r"update 5 at learning rate 0.05.*the loss before it was") as caught:
        fit(y=with_bad(4), run_dir=tmp_path / "run", checkpoint_every=2)
    assert caught.value.update == 5
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "diverged"
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert names == ["step-000000000002", "step-000000000004"]
    with pytest.warns(UserWarning, match=r"not exactly: config\.on_divergence was \"stop\" and is \"skip\""):
        history = fit(
            y=with_bad(4), run_dir=tmp_path / "run", resume=True, on_divergence="skip", allow_mismatch=True,
            checkpoint_every=2,
        )  # fmt: skip
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize("halved_first", [False, True])
def test_restoring_halves_the_rate_until_it_holds(halved_first: bool, tmp_path: Path) -> None:
    optimizer = SGD(3.2 if halved_first else 1.6)  # at which squares explode
    # Told once more that the first epoch begins, it does nothing once more.
    halving = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate if epoch else rate / 2)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        # The first checkpoint alone: later ones would be of weights that have exploded half-way.
        history = fit(
            epochs=40, optimizer=optimizer, on_divergence="restore", run_dir=tmp_path / "run", checkpoint_every=10**6,
            callbacks=[halving] if halved_first else None,
        )  # fmt: skip
    tries = [str(each.message) for each in told if "going on from batch" in str(each.message)]
    assert 1 <= len(tries) <= 3
    assert optimizer.learning_rate == 1.6 / 2 ** len(tries)
    assert f"at learning rate {optimizer.learning_rate:g} (try {len(tries)} of 3)" in tries[-1]
    assert np.isfinite(history.history["loss"]).all()
    assert history.epoch == list(range(40))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["not_finite"]["restored"] == len(tries)


def test_restoring_gives_up(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DivergenceError):
            fit(y=with_bad(3), on_divergence="restore", run_dir=tmp_path / "run")


def test_what_cannot_be_restored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="on_divergence=restore needs run_dir"):
        fit(on_divergence="restore")
    scheduled = SGD(tfmb.optimizers.schedules.Cosine(0.1, 12))
    with pytest.raises(ConfigError, match="halves the rate, but here a schedule or function decides it"):
        fit(optimizer=scheduled, on_divergence="restore", run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="must be one of stop, skip, restore"):
        fit(on_divergence="ignore")
