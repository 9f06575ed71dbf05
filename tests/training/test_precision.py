"""Mixed precision: bfloat16 trains, and float16 does with a loss scale that skips what overflows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stopped_runs
from replica_copies import copies
from steps import steps_of

import tfmb
from tfmb import models
from tfmb.backend import keras, tf
from tfmb.data import Splits
from tfmb.data.batches import Order, stream
from tfmb.data.source import Source
from tfmb.errors import DivergenceError, PreemptedError
from tfmb.optimizers import SGD, Adam
from tfmb.optimizers.loss_scale import LossScale
from tfmb.training.callbacks.loggers import MetricsLog
from tfmb.training.loop.reports import UpdatesReport

layers = keras.layers
ROWS = 16


@pytest.fixture(autouse=True)
def _float32_afterwards() -> Iterator[None]:
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.compile
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_digits_are_learned(policy: str, digits: Splits) -> None:
    images, labels = digits.train.examples.astype("float32") / digits.train.examples.max(), digits.train.labels
    keras.config.set_dtype_policy(policy)
    model = models.mlp(images.shape[1:], 10, seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss, metrics=["accuracy"])
    history = tfmb.fit(model, images, labels, epochs=4, batch_size=32, verbose=0, seed=1).history
    assert model.layers[-2].compute_dtype == policy.removeprefix("mixed_")
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    assert np.isfinite(history["loss"]).all()
    assert history["accuracy"][-1] > 0.9


def update(scale: LossScale, *tries: bool) -> list[tuple[float, int]]:
    """(scale, good steps) after each try."""
    found = []
    for finite in tries:
        scale.update(tf.constant(finite))
        found.append((float(scale.scale.numpy()), int(scale.good_steps.numpy())))
    return found


def test_scale_doubles_after_growth_steps_and_halves_after_an_overflow() -> None:
    scale = LossScale(8.0, growth_steps=3)
    assert scale.variables == []
    scale.build()
    assert update(scale, True, True, True, True) == [(8, 1), (8, 2), (16, 0), (16, 1)]
    # An overflow starts the count anew.
    assert update(scale, False, True, True, False, False) == [(8, 0), (8, 1), (8, 2), (4, 0), (2, 0)]
    assert update(scale, True, True, True) == [(2, 1), (2, 2), (4, 0)]


def test_scale_stays_between_one_and_the_largest_float() -> None:
    scale = LossScale(2.0, growth_steps=1)
    scale.build()
    assert [s for s, _ in update(scale, False, False, False)] == [1, 1, 1]
    scale.scale.assign(2.0**127)
    assert update(scale, True)[0][0] == 2.0**127
    assert LossScale().initial_scale == 2.0**15
    assert LossScale().growth_steps == 2000


def float16_line(strategy: Any) -> Any:
    """w, with w = 0: the gradient at target t is -2t for a mean squared error."""
    keras.config.set_dtype_policy("mixed_float16")
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.zeros((1, 1), "float32")])
    return model


def batches(*targets: float) -> Any:
    """A batch of ones for each target."""
    y = np.repeat(np.asarray(targets, "float32"), ROWS)[:, np.newaxis]
    source = Source.from_arrays(np.ones_like(y), y)
    return stream(source, Order(num_examples=source.size, batch_size=ROWS, seed=0, shuffle=False))


def test_planted_overflow_is_skipped_and_halves_the_scale(strategy: Any) -> None:
    # Float16 ends at 65504. At target 0.5 the scaled gradient is 2^15; at 1.5 it is 98304, and half of it fits.
    # Each of two replicas has half of the batch, and half of its mean gradient.
    initial = 2.0**15 if strategy.num_replicas_in_sync == 1 else 2.0**16
    model, optimizer, scale = float16_line(strategy), Adam(0.001), LossScale(initial)
    with strategy.scope():
        optimizer.build(model.trainable_variables)
        scale.build()
    steps = steps_of(model, optimizer, strategy, scale)
    iterator = batches(0.5, 1.5, 0.5, 1.5)
    variables = [model.trainable_variables[0].value, *optimizer.variables]
    made, scales, states = [], [], []
    for _ in range(4):
        reports, finite = steps.train(iterator, tf.constant(1))
        assert bool(finite)  # training goes on
        made.append(int(reports[0, -1]))
        scales.append({float(copy) for copy in copies(scale.scale)})
        states.append([[copy.copy() for copy in copies(v)] for v in variables])
    assert made == [1, 0, 1, 1]
    assert scales == [{initial}, {initial / 2}, {initial / 2}, {initial / 2}]
    np.testing.assert_equal(states[1], states[0])
    assert [int(copies(optimizer.iterations)[0])] == [3]
    for before, after in ((0, 2), (2, 3)):
        assert states[after][0][0] != states[before][0][0]


@pytest.mark.compile
def test_updates_that_were_made_are_those_without_the_overflow(strategy: Any) -> None:
    weights = []
    initial = 2.0**15 if strategy.num_replicas_in_sync == 1 else 2.0**16
    for targets in ((0.5, 1.5, 0.5, 0.25), (0.5, 0.5, 0.25)):
        model, optimizer, scale = float16_line(strategy), SGD(0.125, momentum=0.5), LossScale(initial)
        with strategy.scope():
            optimizer.build(model.trainable_variables)
            scale.build()
        steps = steps_of(model, optimizer, strategy, scale)
        steps.train(batches(*targets), tf.constant(len(targets)))
        weights.append(model.get_weights()[0])
    np.testing.assert_allclose(weights[0], weights[1], rtol=0, atol=1e-6)
    assert weights[0][0, 0] > 0.1


class Weights(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []
        self.counts: list[int] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(float(self.model.get_weights()[0][0, 0]))
        self.counts.append(int(self.model.optimizer.iterations))


@pytest.mark.filterwarnings("ignore:.*must see every batch")
def test_fit_skips_until_the_scale_fits() -> None:
    # The gradient is -32: 2^15, 2^14, ... overflow until 2^10, which is 5 halvings. Then every update is made.
    model = float16_line(tfmb.distribution.make_strategy("one-device"))
    model.compile("sgd", "mse")
    x = np.ones((8 * ROWS, 1), "float32")
    callback = Weights()
    tfmb.fit(model, x, 16 * x, batch_size=ROWS, shuffle=False, verbose=0, callbacks=[callback])
    assert callback.counts == [0, 0, 0, 0, 0, 1, 2, 3]
    assert callback.seen[:5] == [0] * 5
    assert callback.seen[5] == pytest.approx(0.32, rel=1e-5)
    assert callback.seen[5] < callback.seen[6] < callback.seen[7]


@pytest.mark.filterwarnings("ignore:.*must see every batch")
@pytest.mark.parametrize("rows", [ROWS, ROWS - 5])
@pytest.mark.parametrize("cut", [{"virtual_replicas": 2}, {"virtual_replicas": 4}, {"micro_batch_size": 8}])
def test_sums_of_a_part_overflow_no_sooner_than_the_mean_of_a_batch(cut: dict[str, int], rows: int) -> None:
    """Seed 1131 of tests/differential: the first updates of a batch of 16 rows were skipped four times more often."""
    x = np.ones((8 * rows, 1), "float32")
    made = []
    for fit, given in ((keras.Model.fit, {}), (tfmb.fit, cut)):
        model = float16_line(tfmb.distribution.make_strategy("one-device"))
        model.compile("sgd", "mse")
        callback = Weights()
        fit(model, x, 16 * x, batch_size=rows, shuffle=False, verbose=0, callbacks=[callback], **given)
        made.append(callback.seen)
    skipped = [sum(weight == 0 for weight in weights) for weights in made]
    assert skipped[0] >= skipped[1] > 0
    updates = 8 - skipped[0]
    assert made[1][skipped[1] :][:updates] == pytest.approx(made[0][skipped[0] :], rel=1e-3)


def test_loss_that_is_not_finite_still_ends_the_run() -> None:
    model = float16_line(tfmb.distribution.make_strategy("one-device"))
    model.compile("sgd", "mse")
    x = np.ones((2 * ROWS, 1), "float32")
    y = 0.5 * x
    y[ROWS] = 1e30  # its square overflows float32 too
    with pytest.raises(DivergenceError) as caught:
        tfmb.fit(model, x, y, batch_size=ROWS, shuffle=False, verbose=0)
    assert caught.value.update == 2
    assert np.isfinite(model.get_weights()[0]).all()


def test_overflow_that_no_scale_mends_ends_the_run() -> None:
    # The gradient -2^17 is beyond float16 at any scale: 15 halvings from 2^15 are tried, then there is nothing left.
    model = float16_line(tfmb.distribution.make_strategy("one-device"))
    model.compile("sgd", "mse")
    x = np.ones((40 * ROWS, 1), "float32")
    with pytest.raises(DivergenceError):
        tfmb.fit(model, x, 2.0**16 * x, batch_size=ROWS, shuffle=False, verbose=0)
    assert (model.get_weights()[0] == 0).all()


@pytest.mark.compile
def test_run_that_was_stopped_goes_on_with_its_loss_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    stop = stopped_runs.StopAfter(monkeypatch)
    whole = stopped_runs.fit(tmp_path / "whole", Adam)
    stop.batches = 5
    with pytest.raises(PreemptedError):
        stopped_runs.fit(tmp_path / "cut", Adam)
    stop.batches = None
    resumed = stopped_runs.fit(tmp_path / "cut", Adam, resume=True)
    stopped_runs.assert_same(resumed, whole, (tmp_path / "cut", tmp_path / "whole"))
    assert not list((tmp_path / "cut" / "checkpoints").glob("damaged-*"))


def test_skipped_updates_are_written_down(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, log_every=2)
    for step, skipped in ((1, 1), (2, 0), (3, 0), (4, 0)):
        log.updates_made(
            UpdatesReport(
                epoch=0,
                step=step,
                update=step,
                losses=(1.0,),
                examples=1,
                learning_rate=0.1,
                seconds=0.1,
                skipped=skipped,
            )
        )
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first["skipped_updates"] == 1
    assert "skipped_updates" not in second


@pytest.mark.compile
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_frozen_model_leaves_the_optimizer_alone(policy: str) -> None:
    """Keras builds its optimizer when something is trained: the same one then trains what was frozen."""
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.trainable = False
    model.compile("adam", "mse")
    optimizer, data = model.optimizer, (np.full((8, 2), 0.1), np.full((8, 1), 0.1))  # which do not overflow
    with pytest.warns(UserWarning, match="no trainable weights"):
        tfmb.fit(model, *data, batch_size=4, verbose=0)
    assert not optimizer.built
    model.trainable = True
    model.compile(optimizer, "mse")
    tfmb.fit(model, *data, batch_size=4, verbose=0)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    assert int(inner.iterations) == 2
    if inner is not optimizer:
        assert int(optimizer.step_counter) == 2


@pytest.mark.compile
@pytest.mark.parametrize("scaled", [True, False])
def test_a_loss_is_scaled_where_compile_says_so(scaled: bool) -> None:
    """Its gradient is 0 in float16, but for the scale."""
    keras.config.set_dtype_policy("mixed_float16")
    moved = []
    for fit in (keras.Model.fit, tfmb.fit):
        model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="ones")])
        model.compile(keras.optimizers.SGD(1e6), "mse", auto_scale_loss=scaled)
        fit(model, np.full((1, 1), 1e-5, "float32"), np.full((1, 1), 1e-3, "float32"), verbose=0)
        moved.append(float(model.get_weights()[0][0, 0]) - 1.0)
    assert (moved[0] != 0.0) is scaled
    assert moved[1] == pytest.approx(moved[0], rel=1e-3)
