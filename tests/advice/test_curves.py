"""What advice reads from curves: updates over the batch size, the loss over the rate, where a target was crossed."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from cases import here
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.advice.batch_curve import fit_curve
from tfmb.advice.rate_curve import read_curve
from tfmb.advice.rate_search import RateTransfer
from tfmb.advice.target import Look, Target, crossing
from tfmb.advice.throughput import Throughput
from tfmb.errors import ConfigError

# Measured on MNIST: an MLP by SGD with the best rate for each batch size.
SIZES = [8, 16, 32, 64, 128, 256, 512, 1024, 2048]
UPDATES = [3200, 1800, 900, 600, 400, 300, 240, 200, 210]


def test_the_measured_curve_of_mnist() -> None:
    curve = fit_curve(SIZES, [[updates] for updates in UPDATES])
    assert curve.least_updates.value == pytest.approx(191, rel=0.01)
    assert curve.critical_batch_size.value == pytest.approx(129, rel=0.01)
    assert curve.critical_batch_size.low < 129 < curve.critical_batch_size.high
    for size, updates in zip(SIZES, UPDATES, strict=True):
        assert curve.updates(size).value == pytest.approx(updates, rel=0.1)


def test_three_batch_sizes_predict_the_others() -> None:
    curve = fit_curve([16, 128, 1024], [[1800], [400], [200]])
    for size, updates in zip(SIZES, UPDATES, strict=True):
        assert curve.updates(size).value == pytest.approx(updates, rel=0.13)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.floats(2, 1e5), st.floats(1, 1e4))
def test_a_true_curve_is_found(least: float, critical: float) -> None:
    sizes = [8, 128, 1024]
    curve = fit_curve(sizes, [[least * (1 + critical / size)] for size in sizes])
    assert curve.least_updates.value == pytest.approx(least, rel=0.02)
    assert curve.critical_batch_size.value == pytest.approx(critical, rel=0.02)


NOISE = here([(1, 0.08), (3, 0.15), (3, 0.4)], [(3, 0.15)], several=True)


@pytest.mark.compile
@pytest.mark.parametrize(("seeds", "deviation"), NOISE)
def test_intervals_cover_the_truth_where_updates_are_noisy(seeds: int, deviation: float) -> None:
    random, covered = np.random.default_rng(0), 0
    for _ in range(60):
        noise = np.exp(random.normal(size=(3, seeds)) * deviation)
        noisy = [200 * (1 + 130 / size) * one for size, one in zip((16, 128, 1024), noise, strict=True)]
        found = fit_curve([16, 128, 1024], noisy).critical_batch_size
        covered += found.low <= 130 <= found.high
    assert covered >= 50


def test_one_batch_size_is_no_curve() -> None:
    with pytest.raises(ConfigError, match="a curve needs two"):
        fit_curve([64, 64], [[100.0], [110.0]])


def losses_of(best: float, edge: float, noise: float, rates: Sequence[float], seed: int = 0) -> list[float]:
    """A loss that falls where the rate nears `best`, and explodes at `edge`."""
    random, loss, found = np.random.default_rng(seed), 2.3, []
    for rate in rates:
        loss = loss * (1 + 2 * (rate / edge)) if rate > edge else loss - 0.15 * (loss - 0.2) * min(rate / best, 1)
        found.append(loss * math.exp(noise * random.normal()))
    return found


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("best", "edge"), [(1e-3, 0.1), (0.1, 2.0)])
def test_a_sweep_gives_a_rate_of_use_and_the_edge(best: float, edge: float, seed: int) -> None:
    rates = np.geomspace(1e-6, 30, 150).tolist()
    curve = read_curve(rates, losses_of(best, edge, 0.1, rates, seed))
    assert curve.learning_rate is not None
    assert best / 10 < curve.learning_rate < edge / 2
    assert curve.edge is not None
    assert edge / 2 < curve.edge < edge * 4
    assert "diverges" in curve.reason


def test_a_sweep_that_ends_in_nan_has_its_edge_there() -> None:
    rates = np.geomspace(1e-6, 1, 60).tolist()
    losses = [*losses_of(0.001, 1000000000.0, 0.01, rates)[:50], math.nan]
    curve = read_curve(rates, losses)
    assert curve.edge == pytest.approx(rates[50])
    assert curve.learning_rate is not None


@pytest.mark.parametrize("losses", [[2.0] * 50, [2.0 + 0.1 * i for i in range(50)], [math.nan], [1.0, math.nan], []])
def test_a_sweep_that_tells_nothing_is_undetermined(losses: list[float]) -> None:
    curve = read_curve(np.geomspace(1e-6, 1, 50).tolist(), losses)
    assert curve.learning_rate is None
    assert curve.reason.startswith("undetermined")


def test_nothing_diverged() -> None:
    rates = np.geomspace(1e-6, 0.1, 100).tolist()
    curve = read_curve(rates, losses_of(1e-2, 10, 0.01, rates))
    assert curve.edge is None
    assert "nothing diverged" in curve.reason


def test_rates_go_over_to_other_batch_sizes() -> None:
    transfer = RateTransfer(batch_sizes=(16, 64, 256), learning_rates=(0.1, 0.4, 0.4))
    assert transfer.rate(16) == pytest.approx(0.1)
    assert transfer.rate(32) == pytest.approx(0.2)
    assert transfer.rate(128) == pytest.approx(0.4)
    assert transfer.rate(8) == pytest.approx(0.05)
    assert transfer.rate(4096) == pytest.approx(0.4)
    falling = RateTransfer(batch_sizes=(16, 64), learning_rates=(0.4, 0.1))
    assert (falling.rate(16), falling.rate(256)) == pytest.approx((0.2, 0.2))  # no rule lets it fall
    steep = RateTransfer(batch_sizes=(16, 32), learning_rates=(0.1, 0.8))
    assert steep.rate(64) == pytest.approx(2 * steep.rate(32)) == pytest.approx(4 * steep.rate(16))
    assert steep.rate(16) * steep.rate(32) == pytest.approx(0.08)
    assert RateTransfer(batch_sizes=(16,), learning_rates=(0.3,)).rate(1000) == pytest.approx(0.3)


def test_targets() -> None:
    rising, falling = Target.parse("val_accuracy >= 0.97"), Target.parse("loss<=0.15")
    assert (rising.metric, rising.value, rising.rises, str(rising)) == (
        "val_accuracy",
        0.97,
        True,
        "val_accuracy>=0.97",
    )
    assert falling.reached(0.15)
    assert not falling.reached(0.16)
    assert falling.short_of(0.4) == pytest.approx(0.25)
    assert falling.short_of(math.nan) == math.inf
    wrong: Any
    for wrong in ("", "loss", "loss<0.1", "loss<=x", "loss<=nan", "<=0.1", None):
        with pytest.raises(ConfigError, match="give METRIC>=VALUE"):
            Target.parse(wrong)


def test_the_crossing_lies_between_two_looks() -> None:
    target = Target.parse("val_loss<=0.5")

    def looks(*values: float) -> list[Look]:
        return [Look(updates=10 * (i + 1), examples=0, seconds=0.0, value=v) for i, v in enumerate(values)]

    assert crossing(looks(1.0, 0.75, 0.25), target) == pytest.approx(25)
    assert crossing(looks(0.4), target) == 10
    assert crossing(looks(1.0, 0.6), target) is None
    assert crossing(looks(math.inf, 0.2), target) is not None
    assert crossing([], target) is None


def test_throughput_between_and_beyond() -> None:
    found = Throughput(batch_sizes=(8, 32, 128), step_seconds=(0.1, 0.1, 0.3))
    assert found.seconds(4) == 0.1
    assert found.seconds(80) == pytest.approx(0.2)
    assert found.seconds(256) == pytest.approx(0.6)
    assert found.fastest == 128
    assert found.knee == 128
    assert found.examples_per_second == pytest.approx((80, 320, 426.6667))
