"""Advice, the range test and the comparison on a small problem, as a user calls them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import problems
import pytest

import tfmb
from tfmb.advice import compare as comparison
from tfmb.advice.compare_page import rows_of, write_comparison
from tfmb.advice.pages import write_advice, write_rate_curve
from tfmb.advice.short_runs import AdviceTask, ShortRuns, fresh
from tfmb.advice.target import Target
from tfmb.advice.throughput import measure_throughput
from tfmb.backend import keras
from tfmb.data.source import Source
from tfmb.distribution import make_strategy
from tfmb.errors import ConfigError
from tfmb.jobs.choice import Choice
from tfmb.optimizers import interop
from tfmb.optimizers.schedules import Step


def problem(**given: Any) -> AdviceTask:
    source = Source.from_arrays(problems.X, problems.Y, name="mine")
    train, validation = source.hold_out(100)
    return AdviceTask(build=problems.build, train=train, validation=validation, strategy=make_strategy("auto"), **given)


def test_advice_answers_with_everything_it_rests_on(tmp_path: Path, busy_or_not: None) -> None:
    said: list[str] = []
    found = tfmb.advise(
        problems.build, problems.X, problems.Y, target="val_accuracy>=0.85", batch_sizes=[8, 32, 128], say=said.append
    )
    assert found.batch_size in (8, 32, 128)
    assert found.learning_rate is not None
    assert 1e-5 < found.learning_rate < 10
    assert [p.batch_size for p in found.predictions] == [8, 32, 128]
    assert found.confirmed is not None
    assert found.confirmed.batch_size == found.batch_size
    assert found.rate_for(32) == found.predictions[1].learning_rate
    assert found.transfer is not None
    assert found.rate_for(64) == found.transfer.rate(64)
    assert any(line.startswith("about ") for line in said)
    for prediction in found.predictions:  # what each rests on: the rate it gives, with two more seeds at least
        same = [run for run in found.runs if run.batch_size == prediction.batch_size]
        again = [run for run in same if run.learning_rate == prediction.learning_rate]
        assert len({run.looks for run in again}) >= 2
    record = json.loads(json.dumps(found.record()))
    for name in ("batch_size", "learning_rate", "critical_batch_size"):
        low, high = record[f"{name}_interval"]
        assert low is None or high is None or low <= record[name] <= high
    assert record["cost_seconds"] > 0
    assert sum(run.examples for run in found.runs) <= record["cost_examples"]
    write_advice(found, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text("utf-8")
    for chart in ("updates", "seconds", "rates", "throughput", "range-test"):
        assert f'id="{chart}"' in page
    assert page.count("<tr data-batch") == 3
    drawn = found.figure()
    assert "training time" in drawn.layout.yaxis.title.text
    assert any(trace.name == "advice" and tuple(trace.x) == (found.batch_size,) for trace in drawn.data)
    assert "updates" in found.figure("updates").layout.yaxis.title.text
    with pytest.raises(ConfigError, match="there is no chart 'time': give one of updates, seconds, rates"):
        found.figure("time")


@pytest.mark.compile
def test_advice_chooses_a_target(busy_or_not: None) -> None:
    found = tfmb.advise(problems.build, problems.X, problems.Y, batch_sizes=[16, 64])
    assert found.target_is_ours
    assert found.target is not None
    assert found.target.metric == "val_loss"
    assert found.batch_size in (16, 64)


@pytest.mark.compile
def test_what_is_out_of_reach_is_undetermined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tfmb.advice.inquiry._MOST_PASSES", 1.0)
    monkeypatch.setattr("tfmb.advice.inquiry._LEAST_UPDATES", 10)
    found = tfmb.advise(problems.build, problems.X, problems.Y, target="val_accuracy>=1.5", batch_sizes=[16, 64])
    assert found.batch_size is None
    assert found.reason.startswith("undetermined: no training reached val_accuracy>=1.5")
    assert found.record()["batch_size"] is None
    write_advice(found, tmp_path / "a.html")
    with pytest.raises(ConfigError, match="the chart 'seconds' is empty: There is no prediction"):
        found.figure()
    short = tfmb.advise(problems.build, problems.X, problems.Y, target="val_accuracy>=0.85", budget=1e-3)
    assert short.batch_size is None
    assert "the time was over" in short.reason


def test_labels_that_cannot_be_learned_are_undetermined() -> None:
    found = tfmb.advise(lambda: _still(), problems.X, problems.Y, batch_sizes=[16, 64])
    assert found.batch_size is None
    assert "no learning rate was found that helps" in found.reason


def _still() -> Any:
    """A model whose loss does not depend on its weights."""
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(2)(inputs)
    model = keras.Model(inputs, keras.layers.Lambda(lambda t: 0.0 * t)(hidden))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.compile
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"target": "accuracy"}, "give METRIC>=VALUE"),
        ({"budget": 0}, "budget=0 must be seconds"),
        ({"batch_sizes": [0]}, "must be integers of at least 1"),
        ({"batch_sizes": [10_000]}, "only 540 examples"),
        ({"validation_split": 1.5}, "must be a share between 0 and 1"),
        ({"validation_data": problems.X}, r"validation_data must be \(x, y\)"),
        ({"target": "val_nothing>=1"}, "'val_nothing', which is not measured: there is loss, val_accuracy, val_loss"),
    ],
)
def test_arguments_that_make_no_sense(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tfmb.advise(problems.build, problems.X, problems.Y, **given)


@pytest.mark.compile
def test_a_range_test_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = problems.build_with_state()
    model.fit(problems.X, problems.Y, verbose=0)
    before = [v.numpy().tobytes() for v in (*model.variables, *model.optimizer.variables)]
    curve = tfmb.lr_range(model, problems.X, problems.Y, batch_size=16, updates=80)
    assert [v.numpy().tobytes() for v in (*model.variables, *model.optimizer.variables)] == before
    assert curve.learning_rate is not None
    assert len(curve.losses) <= 80
    assert list(curve.learning_rates) == sorted(curve.learning_rates)
    write_rate_curve(curve, tmp_path / "r.html", "mine")
    assert 'id="range-test"' in (tmp_path / "r.html").read_text("utf-8")


def test_a_range_test_that_diverges_leaves_it_too() -> None:
    model = problems.build()
    before = [v.numpy().tobytes() for v in model.variables]
    curve = tfmb.lr_range(model, problems.X, problems.Y, low=1.0, high=1e30, updates=60, optimizer="sgd")
    assert [v.numpy().tobytes() for v in model.variables] == before
    assert curve.edge is not None


@pytest.mark.parametrize(
    ("given", "words"),
    [({"low": 1.0, "high": 0.1}, "0 < low < high"), ({"updates": 3}, "updates=3 must be"), ({"model": 3}, "is a int")],
)
def test_range_tests_that_make_no_sense(given: dict[str, Any], words: str) -> None:
    given = {"model": given.pop("model", None) or problems.build(), **given}
    with pytest.raises(ConfigError, match=words):
        tfmb.lr_range(given.pop("model"), problems.X, problems.Y, **given)


def test_a_short_run_is_the_same_again_and_what_fit_trains() -> None:
    runs = ShortRuns(problem(optimizer="sgd", seed=3))
    target = Target.parse("val_loss<=0.4")
    first = runs.run(16, 0.05, target, most_updates=400)
    other = runs.run(64, 0.2, target, most_updates=400)
    again = runs.run(16, 0.05, target, most_updates=400)
    assert first.updates == again.updates
    assert [look.value for look in first.looks] == [look.value for look in again.looks]
    assert other.updates != first.updates
    assert runs.spent_examples == first.examples + other.examples + again.examples
    diverged = runs.run(16, 1e20, target, most_updates=400)
    assert diverged.diverged
    assert diverged.updates is None


def test_looks_may_begin_later_and_show_the_same() -> None:
    runs, target = ShortRuns(problem(optimizer="sgd", seed=3)), Target.parse("val_loss<=0.4")
    all_looks = {look.updates: look.value for look in runs.run(16, 0.05, target, most_updates=400).looks}
    later = runs.run(16, 0.05, target, most_updates=400, first_look=40)
    assert {look.updates: look.value for look in later.looks} == {n: v for n, v in all_looks.items() if n >= 40}
    assert [look.updates for look in runs.run(16, 0.05, target, most_updates=30, first_look=40).looks] == [30]


@pytest.mark.compile
def test_advice_looks_only_where_the_target_may_be_reached() -> None:
    found = tfmb.advise(problems.build, problems.X, problems.Y, target="val_loss<=0.35", batch_sizes=[8, 32, 128])
    first = next(run for run in found.runs if run.updates is not None)
    assert first.updates is not None
    others = found.runs[found.runs.index(first) + 1 :]
    assert others
    for run in others:
        earliest = 0.4 * min(r.updates * min(r.batch_size, run.batch_size) for r in found.runs if r.updates is not None)
        assert run.diverged or run.looks[0].examples >= min(earliest, run.examples) - run.batch_size


def test_throughput_is_measured_for_each_size() -> None:
    found = measure_throughput(ShortRuns(problem()), [64, 8, 8])
    assert found.batch_sizes == (8, 64)
    assert all(0 < seconds < 1 for seconds in found.step_seconds)


class OneBurst:
    """Updates take half a millisecond and two microseconds an example, five times that while another process works."""

    def __init__(self, begins: float, ends: float) -> None:
        self.clock, self.begins, self.ends = 0.0, begins, ends

    def time_updates(self, batch_size: int, count: int, **_: Any) -> float:
        seconds = 0.0005 + 2e-6 * batch_size
        if self.begins <= self.clock < self.ends:
            seconds *= 5
        self.clock += count * seconds
        return seconds


def test_a_burst_slows_no_batch_size_alone() -> None:
    """In a row, 0.25 s each, it fell on batch size 64 and made it five times as slow as it is."""
    runs: Any = OneBurst(0.1, 0.5)
    found = measure_throughput(runs, [32, 64, 128, 256])
    for size, seconds in zip(found.batch_sizes, found.step_seconds, strict=True):
        assert seconds == pytest.approx(0.0005 + 2e-6 * size, rel=0.02)


@pytest.mark.compile
def test_the_three_ways_down(tmp_path: Path) -> None:
    found = comparison.compare(
        problem(optimizer="sgd"), Target.parse("val_accuracy>=0.8"), batch_size=32, seconds=0.5, name="mine",
        peak_of=lambda size: (None, "does not fit") if size == 500 else (2**30, ""),
    )  # fmt: skip
    whole, mini, single = found.methods
    assert (whole.batch_size, mini.batch_size, single.batch_size) == (500, 32, 1)
    assert (whole.updates_an_epoch, mini.updates_an_epoch, single.updates_an_epoch) == (1, 16, 500)
    assert whole.noise == 0
    assert mini.noise is not None
    assert single.noise == pytest.approx(mini.noise * 32 / ((500 - 32) / 499))
    assert len({look.updates for look in single.run.looks}) == len(single.run.looks)
    rows = rows_of(found)
    assert [row[8] for row in rows] == ["does not fit", "1,024 MiB", "1,024 MiB"]
    assert json.dumps(found.record())
    write_comparison(found, tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text("utf-8")
    assert page.count("<tr data-method") == 3
    with pytest.raises(ConfigError, match="batch_size=1 must be an integer between 1 and 500"):
        comparison.compare(problem(), Target.parse("loss<=1"), batch_size=1)


@pytest.mark.compile
def test_the_noise_at_the_start_is_that_of_single_examples() -> None:
    runs = ShortRuns(problem(optimizer="sgd", seed=1))
    noise, signal = runs.noise_at_start().means
    assert noise > 0
    assert signal > 0
    runs._start_anew(0.1, 1)
    losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model, train = runs.model, runs.problem.train
    gradients = []
    import tensorflow as tf

    for row in range(200):
        with tf.GradientTape() as tape:
            loss = losses(train.labels[row : row + 1], model(train.examples[row : row + 1], training=False))
        found = tape.gradient(loss, [v.value for v in model.trainable_variables])
        gradients.append(np.concatenate([g.numpy().ravel() for g in found]))
    spread = np.var(np.array(gradients), axis=0, ddof=1).sum()
    assert 0.2 < noise / spread < 5  # with statistics of batches, and not of none


@pytest.mark.parametrize("text", ["sgd,momentum=0.5,nesterov", "adam,beta_1=0.8", "rmsprop,rho=0.5,clipnorm=1"])
def test_an_optimizer_with_arguments_is_made_anew(text: str) -> None:
    """`tfmb advise --optimizer sgd,momentum=0.5` ended in a traceback."""
    rule = Choice.parse("optimizer", text)
    given = interop.OPTIMIZERS[rule.name](**rule.arguments, learning_rate=Step(0.1, every=3))
    made = fresh(given)
    assert made is not given
    assert (type(made), made.get_config()) == (type(given), given.get_config())
