"""Schedules: each against its formula in NumPy and against Keras; records, refusals and use in an optimizer."""

import dataclasses
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.optimizers import SGD, schedules
from tfmb.optimizers.schedules import Constant, Cosine, Exponential, MultiStep, OneCycle, Plateau, Step, Warmup

COUNTS = (0, 1, 2, 3, 5, 7, 10, 19, 20, 21, 50, 1000)
decays = keras.optimizers.schedules


def one_cycle(t: float) -> float:
    if t < 6:
        return 0.3 + (0.01 - 0.3) * (1 + np.cos(np.pi * t / 6)) / 2
    return 0.003 + (0.3 - 0.003) * (1 + np.cos(np.pi * min((t - 6) / 14, 1))) / 2


FORMULAS: list[tuple[schedules.Schedule, Callable[[float], float]]] = [
    (Constant(0.3), lambda t: 0.3),
    (Step(0.3, 5, 0.5), lambda t: 0.3 * 0.5 ** (t // 5)),
    (MultiStep(0.3, (2, 10, 20), 0.5), lambda t: 0.3 * 0.5 ** sum(t >= m for m in (2, 10, 20))),
    (Exponential(0.3, 7, 0.9), lambda t: 0.3 * 0.9 ** (t / 7)),
    (schedules.Polynomial(0.3, 20, 0.1, 2.0), lambda t: 0.1 + 0.2 * (1 - min(t / 20, 1)) ** 2),
    (Cosine(0.3, 20, 0.1), lambda t: 0.1 + 0.2 * (1 + np.cos(np.pi * min(t / 20, 1))) / 2),
    (OneCycle(0.3, 20, 0.3, 30.0, 100.0), one_cycle),
    (Warmup(Constant(0.3), 10, 0.1), lambda t: 0.3 * (0.1 + 0.9 * min(t / 10, 1))),
    (Warmup(Exponential(0.3, 7, 0.9), 5), lambda t: 0.3 * min(t / 5, 1) * 0.9 ** (max(t - 5, 0) / 7)),
]
each = pytest.mark.parametrize(("schedule", "formula"), FORMULAS, ids=lambda x: getattr(type(x), "__name__", None))


@each
def test_each_is_its_formula(schedule: schedules.Schedule, formula: Callable[[float], float]) -> None:
    for count in COUNTS:
        right = formula(float(count))
        assert schedule(tf.constant(count, tf.int64)).dtype == tf.float64
        np.testing.assert_allclose(schedule(tf.constant(count, tf.int64)), right, rtol=1e-12, atol=1e-17)
        np.testing.assert_allclose(schedule(count), right, rtol=1e-12, atol=1e-17)


@each
def test_each_comes_back_from_its_record(schedule: schedules.Schedule, formula: Any) -> None:
    assert schedules.from_config(json.loads(json.dumps(schedule.get_config()))) == schedule


@pytest.mark.parametrize(
    ("ours", "right"),
    [
        (Exponential(0.3, 7, 0.9), decays.ExponentialDecay(0.3, 7, 0.9)),
        (Step(0.3, 7, 0.9), decays.ExponentialDecay(0.3, 7, 0.9, staircase=True)),
        (schedules.Polynomial(0.3, 20, 0.1, 2.0), decays.PolynomialDecay(0.3, 20, 0.1, 2.0)),
        (schedules.Polynomial(0.3, 20), decays.PolynomialDecay(0.3, 20, 0.0)),
        (Cosine(0.3, 20, 0.06), decays.CosineDecay(0.3, 20, alpha=0.2)),
        (Warmup(Cosine(0.3, 20), 5), decays.CosineDecay(0.0, 20, warmup_target=0.3, warmup_steps=5)),
        (Warmup(decays.ExponentialDecay(0.3, 7, 0.9), 1, 1.0), lambda t: 0.3 * 0.9 ** (max(t - 1, 0) / 7)),
    ],
)
def test_each_is_its_counterpart_in_keras(ours: schedules.Schedule, right: Any) -> None:
    for count in COUNTS:
        np.testing.assert_allclose(ours(count), right(count), atol=1e-6)


@pytest.mark.parametrize("rise", [0.1, 0.3, 0.5])
def test_one_cycle_has_its_ends_and_its_peak_and_no_jump(rise: float) -> None:
    schedule = OneCycle(0.5, 100, rise)
    rates = np.array([float(schedule(t)) for t in range(151)])
    np.testing.assert_allclose(rates[[0, 100, 150]], [0.5 / 25, 0.5 / 1e4, 0.5 / 1e4])
    top = round(rise * 100)
    assert rates.argmax() == top
    np.testing.assert_allclose(rates[top], 0.5)
    assert np.all(np.diff(rates[: top + 1]) > 0)
    assert np.all(np.diff(rates[top:101]) < 0)
    assert abs(np.diff(rates)).max() < 0.5 * np.pi / 2 / min(top, 100 - top)


def plateau_of_keras(plateau: Plateau, scores: list[float], rate: float) -> list[float]:
    options = dataclasses.asdict(plateau)
    callback = keras.callbacks.ReduceLROnPlateau(min_lr=options.pop("min_learning_rate"), **options)
    optimizer = SimpleNamespace(learning_rate=np.float64(rate))
    callback.set_model(SimpleNamespace(optimizer=optimizer))
    callback.on_train_begin()
    rates = []
    for epoch, score in enumerate(scores):
        callback.on_epoch_end(epoch, {plateau.monitor: score})
        rates.append(float(optimizer.learning_rate))
    return rates


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    scores=st.lists(st.integers(0, 6).map(lambda i: i / 4), min_size=1, max_size=25),
    mode=st.sampled_from(["min", "max"]),
    patience=st.integers(0, 4),
    cooldown=st.integers(0, 3),
    min_delta=st.sampled_from([0.0, 1e-4, 0.3]),
    least=st.sampled_from([0.0, 0.25]),
)
def test_plateau_is_the_one_of_keras(
    scores: list[float], mode: str, patience: int, cooldown: int, min_delta: float, least: float
) -> None:
    plateau = Plateau(
        mode=mode, factor=0.5, patience=patience, cooldown=cooldown, min_delta=min_delta, min_learning_rate=least
    )
    state, rate, rates = plateau.start(), 1.0, []
    for score in scores:
        state, rate = plateau.step(state, score, rate)
        rates.append(rate)
    np.testing.assert_allclose(rates, plateau_of_keras(plateau, scores, 1.0), rtol=1e-12)


def test_scale_rate() -> None:
    assert schedules.scale_rate(0.1, 512, 128) == pytest.approx(0.4)
    assert schedules.scale_rate(0.1, 512, 128, "sqrt") == pytest.approx(0.2)
    assert schedules.scale_rate(0.1, 512, 128, "none") == 0.1
    assert schedules.scale_rate(0.1, 64, 128, "linear") == pytest.approx(0.05)


def test_over_run() -> None:
    right = {"constant": 0.1, "plateau": 0.1, "step": Step(0.1, 34), "exponential": Exponential(0.1, 10, 0.95)}
    right |= {"polynomial": schedules.Polynomial(0.1, 100), "cosine": Cosine(0.1, 100), "one-cycle": OneCycle(0.1, 100)}
    assert {name: schedules.over_run(name, 0.1, 100, 10) for name in right} == right


@pytest.mark.parametrize("inner", [Exponential(0.5, 3, 0.5), Warmup(MultiStep(0.5, (3, 4)), 2)])
def test_in_an_optimizer_the_rate_follows_the_count_with_one_trace(inner: schedules.Schedule) -> None:
    weight, optimizer, traces = tf.Variable([0.0]), SGD(inner), []
    optimizer.build([weight])

    @tf.function
    def step() -> None:
        traces.append(1)
        optimizer.apply([tf.constant([1.0])])

    sum_of_rates = 0.0
    for count in range(6):
        step()
        sum_of_rates += float(inner(count))
        np.testing.assert_allclose(weight, [-sum_of_rates], rtol=1e-6)
    assert len(traces) == 1


def test_records_of_a_warmup_around_a_schedule_of_keras_are_plain() -> None:
    json.dumps(Warmup(decays.ExponentialDecay(0.3, 7, 0.9), 5).get_config())


REFUSED: dict[str, Callable[[], Any]] = {
    "learning_rate": lambda: Constant(-0.1),
    "learning_rate=nan": lambda: Constant(float("nan")),
    "learning_rate=True": lambda: Constant(True),
    "learning_rate='a'": lambda: Cosine("a", 3),  # type: ignore[arg-type]
    "every": lambda: Step(0.1, 0),
    "gamma": lambda: Step(0.1, 3, -1.0),
    "milestones": lambda: MultiStep(0.1, (3, 2)),
    r"milestones=\(\)": lambda: MultiStep(0.1, ()),
    r"milestones=\(0": lambda: MultiStep(0.1, (0, 2)),
    "over=2.5": lambda: Exponential(0.1, 2.5, 0.9),  # type: ignore[arg-type]
    "power": lambda: schedules.Polynomial(0.1, 3, 0.0, -1.0),
    "end_learning_rate": lambda: Cosine(0.1, 3, -1.0),
    "rise": lambda: OneCycle(0.1, 3, 1.0),
    "start_factor and end_factor": lambda: OneCycle(0.1, 3, 0.5, 0.5),
    "is no schedule": lambda: Warmup(0.1, 3),
    "updates=0": lambda: Warmup(Constant(0.1), 0),
    "start_factor=2": lambda: Warmup(Constant(0.1), 3, 2),
    "mode": lambda: Plateau(mode="auto"),
    "factor=1.0": lambda: Plateau(factor=1.0),
    "patience": lambda: Plateau(patience=-1),
    "rule": lambda: schedules.scale_rate(0.1, 2, 2, "cubic"),
    "batch sizes": lambda: schedules.scale_rate(0.1, 0, 2),
    "unknown schedule 'x'": lambda: schedules.over_run("x", 0.1, 2, 2),
    "unknown schedule None": lambda: schedules.from_config({}),
    "schedule Step": lambda: schedules.from_config({"class": "Step", "other": 1}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_refusals_are_one_line(words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        REFUSED[words]()
    assert "\n" not in str(caught.value)
