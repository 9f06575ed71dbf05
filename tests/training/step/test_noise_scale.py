"""The gradient noise scale: the estimator on gradients whose scale is known, and what the loop feeds it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.data.batches import part_bounds
from tfmb.errors import ConfigError
from tfmb.training.step.noise_scale import NoiseScaleEstimator

layers = keras.layers
ROWS, BATCH = 60, 16
X = np.random.default_rng(0).normal(size=(ROWS, 5)).astype("float32")
Y = (X.sum(1) > 0).astype("int64")
TRUE, SIZE = 200.0, 10_000


def synthetic(updates: int, seed: int, sizes: tuple[int, ...] = (32, 32)) -> NoiseScaleEstimator:
    """Gradients of length 1 with tr(Sigma) = 200, of parts with so many examples."""
    random, found = np.random.default_rng(seed), NoiseScaleEstimator(window=None)
    true = np.full(SIZE, 1 / math.sqrt(SIZE))
    for _ in range(updates):
        parts = [true + random.normal(size=SIZE) * math.sqrt(TRUE / SIZE / n) for n in sizes]
        rows = sum(sizes)
        whole = sum((n * part for n, part in zip(sizes, parts, strict=True)), np.zeros(SIZE)) / rows
        squares = sum(n * float(part @ part) for n, part in zip(sizes, parts, strict=True))
        noise = (squares - rows * float(whole @ whole)) / (len(sizes) - 1)
        found.add(noise, float(whole @ whole) - noise / rows)
    return found


@pytest.mark.parametrize("sizes", [(32, 32), (10, 54), (8,) * 8])
def test_known_noise_is_found(sizes: tuple[int, ...]) -> None:
    found = synthetic(100, 1, sizes).estimate()
    assert found.value is not None
    assert found.value == pytest.approx(TRUE, rel=0.03)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_intervals_cover_what_they_say() -> None:
    covered = 0
    for seed in range(60):
        found = synthetic(40, seed, (8, 8)).estimate()
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= TRUE <= found.high
    assert covered >= 0.85 * 60


def test_what_cannot_be_told_is_undetermined() -> None:
    found = NoiseScaleEstimator()
    assert found.estimate().value is None
    assert str(found.estimate()) == "undetermined after 0 updates"
    random = np.random.default_rng(2)
    for _ in range(100):  # no gradient at all
        found.add(1.0, random.normal() - 0.5)
    assert found.estimate().value is None
    weak = NoiseScaleEstimator()
    for sign in range(100):
        weak.add(1.0, 0.01 + (-1) ** sign)
    assert weak.estimate().high == math.inf


def test_nonsense_does_not_count() -> None:
    found = NoiseScaleEstimator()
    for value in (math.nan, math.inf):
        found.add(value, 1.0)
        found.add(1.0, value)
    found.add(0.0, 0.0)
    assert found.estimate().updates == 0


def test_older_updates_count_less() -> None:
    found = NoiseScaleEstimator(window=20)
    for noise in [1.0] * 200 + [4.0] * 200:
        found.add(noise, 1.0)
    assert found.estimate().value == pytest.approx(4.0, rel=1e-3)
    assert found.estimate().updates == pytest.approx(39, rel=0.01)


def build() -> Any:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((5,))
    hidden = layers.Dense(8, "tanh", kernel_regularizer="l2")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def by_hand(parts: int, rows: int = BATCH) -> tuple[float, float]:
    """(tr(Sigma), |G|^2) of the first batch in order, from gradients of each part alone."""
    model, loss = build(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def gradient(first: int, last: int) -> np.ndarray:
        with tf.GradientTape() as tape:
            value = loss(Y[first:last], model(X[first:last]))
        found = tape.gradient(value, [v.value for v in model.trainable_variables])
        return np.concatenate([g.numpy().ravel() for g in found]).astype("float64")

    whole = gradient(0, rows)
    bounds = [[int(b) for b in part_bounds(tf.constant(rows), number, parts)] for number in range(parts)]
    own = [(last - first, gradient(first, last)) for first, last in bounds if last > first]
    noise = (sum(n * (g @ g) for n, g in own) - rows * (whole @ whole)) / (len(own) - 1)
    return noise, whole @ whole - noise / rows


def noise_of_first_update(monkeypatch: pytest.MonkeyPatch, batch_size: int = BATCH, **options: Any) -> Any:
    found: list[tuple[float, float]] = []
    add = NoiseScaleEstimator.updates_made

    def keep(self: NoiseScaleEstimator, report: Any) -> None:
        found.extend(report.noise)
        add(self, report)

    monkeypatch.setattr(NoiseScaleEstimator, "updates_made", keep)
    tfmb.fit(build(), X, Y, batch_size, shuffle=False, seed=1, verbose=0, measure_noise_scale=True, **options)
    return found


@pytest.mark.compile
@pytest.mark.parametrize(
    "options",
    [
        {"virtual_replicas": 2},
        {"virtual_replicas": 4},
        {"micro_batch_size": 8},
        {"devices": 2},
        {"virtual_replicas": 4, "devices": 2},
        {"virtual_replicas": 4, "pad_batches": True},
        {"virtual_replicas": 2, "jit_compile": True},
        {"virtual_replicas": 2, "optimizer": keras.optimizers.Lion(1e-3)},
        {"virtual_replicas": 2, "optimizer": tfmb.optimizers.SGD(0.1, global_clipnorm=1e-3)},
    ],
)
def test_the_loop_measures_what_single_gradients_say(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = noise_of_first_update(monkeypatch, run_dir=tmp_path / "r", **options)
    assert len(found) == 4
    np.testing.assert_allclose(found[0], by_hand(options.get("virtual_replicas", 2)), rtol=2e-4)


@pytest.mark.compile
def test_parts_of_any_size_and_of_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = noise_of_first_update(monkeypatch, 59, virtual_replicas=8, run_dir=tmp_path / "r")
    np.testing.assert_allclose(found[0], by_hand(8, 59), rtol=2e-4)
    assert found[1] == (0.0, 0.0)  # one row has no noise to tell
    few = noise_of_first_update(monkeypatch, 3, virtual_replicas=8, run_dir=tmp_path / "few")
    np.testing.assert_allclose(few[0], by_hand(8, 3), rtol=2e-4)


def test_measuring_leaves_every_bit(tmp_path: Path) -> None:
    weights = []
    for noise_scale in (False, True):
        model = build()
        history = tfmb.fit(model, X, Y, 16, 3, seed=1, verbose=0, virtual_replicas=4, measure_noise_scale=noise_scale)
        weights.append([w.tobytes() for w in model.get_weights()])
        assert ("noise_scale" in history.history) == noise_scale
    assert weights[0] == weights[1]


@pytest.mark.compile
def test_records_have_it_with_its_interval(tmp_path: Path) -> None:
    tfmb.fit(
        build(), X, Y, 2, 5, seed=1, verbose=0, virtual_replicas=2, measure_noise_scale=True, run_dir=tmp_path / "r"
    )
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if "loss" in line]
    assert len(epochs) == 5
    assert all("noise_scale" in line for line in lines)


@pytest.mark.compile
def test_a_resumed_run_writes_the_same_bytes(tmp_path: Path) -> None:
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    def train(folder: Path, resume: bool, callbacks: list[Any]) -> None:
        model = build()
        tfmb.fit(
            model, np.tile(X, (8, 1)), np.tile(Y, 8), 2, 4, seed=1, verbose=0, virtual_replicas=2,
            measure_noise_scale=True, run_dir=folder, resume=resume, checkpoint_every=7, callbacks=callbacks,
        )  # fmt: skip

    train(tmp_path / "whole", False, [keras.callbacks.Callback()])
    Stop.__name__ = "Callback"  # a run goes on with the same kinds of callbacks
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", False, [Stop()])
    train(tmp_path / "cut", True, [keras.callbacks.Callback()])
    whole, partition = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut"))
    assert whole == partition
    assert b'"noise_scale_interval": [' in whole


def test_a_whole_batch_tells_nothing() -> None:
    with pytest.raises(ConfigError, match="each batch is whole: give virtual_replicas=2"):
        tfmb.fit(build(), X, Y, measure_noise_scale=True, verbose=0)


@pytest.mark.compile
def test_two_outputs_make_one_gradient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def two() -> Any:
        keras.utils.set_random_seed(4)
        inputs = keras.Input((5,))
        hidden = layers.Dense(6, "tanh")(inputs)
        model = keras.Model(inputs, [layers.Dense(1, name="a")(hidden), layers.Dense(2, name="b")(hidden)])
        model.compile("sgd", {"a": "mse", "b": "mae"}, loss_weights={"a": 1.0, "b": 3.0})
        return model

    targets = [X[:, :1], X[:, 1:3]]
    found: list[tuple[float, float]] = []
    monkeypatch.setattr(NoiseScaleEstimator, "updates_made", lambda self, report: found.extend(report.noise))
    tfmb.fit(two(), X, targets, BATCH, shuffle=False, seed=1, verbose=0, measure_noise_scale=True, virtual_replicas=2,
             run_dir=tmp_path / "r")  # fmt: skip
    model = two()

    def gradient(first: int, last: int) -> np.ndarray:
        with tf.GradientTape() as tape:
            a, b = model(X[first:last])
            first_loss = tf.reduce_mean((a - targets[0][first:last]) ** 2)
            value = first_loss + 3.0 * tf.reduce_mean(tf.abs(b - targets[1][first:last]))
        taken = tape.gradient(value, [v.value for v in model.trainable_variables])
        return np.concatenate([g.numpy().ravel() for g in taken]).astype("float64")

    whole, halves = gradient(0, BATCH), [gradient(0, 8), gradient(8, BATCH)]
    noise = 8 * sum(g @ g for g in halves) - BATCH * (whole @ whole)
    np.testing.assert_allclose(found[0], (noise, whole @ whole - noise / BATCH), rtol=2e-4)
