"""The outer loop with a step that only counts, an optimizer that only knows its number, and a clock of our own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmb.backend import tf
from tfmb.errors import ConfigError, DivergenceError
from tfmb.training.input.pipeline import EpochBatches
from tfmb.training.loop.hooks import CallbackHook, Hooks
from tfmb.training.loop.plan import LoopState, TrainingPlan, add_up
from tfmb.training.loop.reports import EpochReport, UpdatesReport
from tfmb.training.loop.run import run
from tfmb.training.step.report import ReportView


class _Count:
    """An integer that looks like the optimizer's variable."""

    def __init__(self) -> None:
        self.value = 0

    def numpy(self) -> int:
        return self.value

    def __sub__(self, other: int) -> int:
        return self.value - other


@dataclass
class _World:
    """Everything around the loop: it trains by counting and writes down what happens."""

    seconds_a_step: float = 0.0
    first_call_seconds: float = 0.0
    length: int | None = None  # batches before the iterator ends
    bad_update: int = -1  # the update, from 1, whose loss is not finite
    now: float = 0.0
    iterations: _Count = field(default_factory=_Count)
    calls: list[int] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)

    def rate_at(self, updates: Any) -> float:
        return 1.0 / (1 + int(updates))

    tracing_seconds: float = 0.0
    begun: list[int] = field(default_factory=list)

    optimizer: Any = field(init=False, repr=False, compare=False)  # itself

    def __post_init__(self) -> None:
        self.optimizer = self

    @property
    def traces(self) -> int:
        return min(len(self.calls), 1)  # the first call traces

    def begin(self) -> None:
        self.begun.append(self.iterations.value)

    def view(self, values: np.ndarray) -> ReportView:
        return ReportView(values)

    def logs(self, sums: np.ndarray) -> dict[str, Any]:
        return {"zeal": 1.0, "loss": sums[2] / sums[1]}

    def batch_logs(self, sums: np.ndarray) -> dict[str, Any]:
        return self.logs(sums)

    def train(self, iterator: list[int], count: int) -> tuple[ReportView, bool]:
        rows, wanted = [], int(count)
        self.now += self.first_call_seconds if not self.calls else 0.0
        for _ in range(wanted):
            if self.length is not None and iterator[0] == self.length:
                raise tf.errors.OutOfRangeError(None, None, "the end")
            iterator[0] += 1
            self.now += self.seconds_a_step
            bad = self.iterations.value + 1 == self.bad_update
            if not bad:
                self.iterations.value += 1
            loss = float("nan") if bad else float(self.iterations.value)
            rows.append([loss, 4.0, 4 * loss, 0.0, float(not bad)])
            if bad:
                return ReportView(np.array(rows, "float32")), False
        self.calls.append(wanted)
        return ReportView(np.array(rows, "float32")), True

    def updates_made(self, report: UpdatesReport) -> None:
        self.events.append(report)

    def epoch_ended(self, report: EpochReport) -> None:
        self.events.append(report)

    def validate(self, epoch: int) -> dict[str, Any]:
        self.events.append(f"validate {epoch}")
        return {"val_loss": 0.5, "val_accuracy": 0.25}

    def run(
        self, plan: TrainingPlan, steps: int | None, validate: Callable[[int], dict[str, Any]] | None = None
    ) -> int:
        hooks = Hooks(loggers=[self], validate=validate or (lambda epoch: {}))
        batches = EpochBatches([0], steps)  # a list is enough for a fake training
        return run(self, lambda epoch: batches._replace(iterator=[0]), plan, hooks, clock=lambda: self.now).drawn

    @property
    def reports(self) -> list[UpdatesReport]:
        return [event for event in self.events if isinstance(event, UpdatesReport)]


@given(
    epochs=st.integers(1, 4),
    initial_epoch=st.integers(0, 4),
    steps=st.integers(1, 230),
    log_every=st.integers(1, 120),
    seconds=st.sampled_from([0.0, 1e-4, 0.02, 0.3, 2.0]),
)
def test_every_step_is_made_in_bounded_calls_that_end_at_the_logs(
    epochs: int, initial_epoch: int, steps: int, log_every: int, seconds: float
) -> None:
    world = _World(seconds_a_step=seconds, first_call_seconds=5.0)
    made = world.run(TrainingPlan(epochs=epochs, initial_epoch=initial_epoch, log_every=log_every), steps)
    assert made == sum(world.calls) == world.iterations.value == steps * max(0, epochs - initial_epoch)
    # Half a second a call at most, where a step is not longer than that itself; the first call is one step.
    assert max(world.calls, default=1) <= max(1, min(100, 0.5 / max(seconds, 1e-6)))
    assert world.calls[:1] in ([], [1])
    ends = [(report.epoch, report.step) for report in world.reports]
    for epoch in range(initial_epoch, epochs):
        assert set(range(log_every, steps + 1, log_every)) | {steps} <= {step for e, step in ends if e == epoch}
    losses = [loss for report in world.reports for loss in report.losses]
    assert losses == list(range(1, made + 1))


def test_calls_grow_once_the_speed_is_known() -> None:
    world = _World(seconds_a_step=0.125, first_call_seconds=64.0)
    world.run(TrainingPlan(epochs=1), 12)
    # One that compiles, one that is timed, then half a second each and what is left.
    assert world.calls == [1, 1, 4, 4, 2]


def test_calls_shrink_again_where_steps_become_slow() -> None:
    world = _World(seconds_a_step=0.001)

    def slower(iterator: Any, count: Any) -> Any:
        world.seconds_a_step = 0.001 if world.iterations.value < 100 else 0.25
        return train(iterator, count)

    train = world.train
    world.train = slower  # type: ignore[method-assign]
    world.run(TrainingPlan(epochs=1), 220)
    assert world.calls == [1, 1, 98, 100, *[2] * 10]


def test_reports_tell_what_was_done() -> None:
    world = _World(seconds_a_step=0.25)
    world.run(TrainingPlan(epochs=3, initial_epoch=1, log_every=2), 5)
    first, *_, last = world.reports
    assert first == UpdatesReport(
        epoch=1, step=1, update=1, losses=(1.0,), examples=4, learning_rate=1.0, seconds=0.25, traced=True
    )
    assert last == UpdatesReport(
        epoch=2, step=5, update=10, losses=(10.0,), examples=4, learning_rate=1 / 10, seconds=0.25
    )
    ended = [event for event in world.events if isinstance(event, EpochReport)]
    assert ended[1] == EpochReport(
        epoch=2,
        update=10,
        logs={"loss": 8.0, "zeal": 1.0},
        examples=20,
        timed_examples=20,
        seconds=1.25,
        learning_rate=1 / 10,
    )


def test_the_time_of_calls_that_trace_is_told_apart() -> None:
    world = _World(seconds_a_step=0.125, first_call_seconds=64.0)
    world.run(TrainingPlan(epochs=2), 12)
    first, *others = world.reports
    assert first.traced
    assert first.seconds == 64.125
    assert not any(report.traced for report in others)
    one, two = [event for event in world.events if isinstance(event, EpochReport)]
    assert (one.examples, one.timed_examples, one.seconds, one.tracing_seconds) == (48, 44, 11 * 0.125, 64.125)
    assert (two.examples, two.timed_examples, two.seconds, two.tracing_seconds) == (48, 48, 1.5, 0.0)


def test_validation_comes_after_the_updates_and_before_the_epochs_report() -> None:
    world = _World(seconds_a_step=1.0)
    world.run(TrainingPlan(epochs=2), 2, world.validate)
    kinds = [event if isinstance(event, str) else type(event).__name__ for event in world.events]
    once = ["UpdatesReport", "UpdatesReport", "validate {}", "EpochReport"]
    assert kinds == [kind.format(epoch) for epoch in range(2) for kind in once]
    logs = world.events[3].logs
    assert list(logs) == ["loss", "val_accuracy", "val_loss", "zeal"]


@pytest.mark.parametrize(("step", "begun"), [(0, [0, 3, 6]), (2, [1, 4])])
def test_totals_begin_anew_before_every_epoch_but_one_that_is_gone_on_with(step: int, begun: list[int]) -> None:
    world = _World()
    start = LoopState(epoch=0, step=step, sums=(1.0, 4.0, 4.0, 0.0, 1.0) if step else None)
    run(world, lambda epoch: EpochBatches([0], 3), TrainingPlan(epochs=3), Hooks(), start)
    assert world.begun == begun


class _Looks(CallbackHook):
    """Looks at every second batch, and wants to begin with the second epoch."""

    each_batch = True
    steps_between_looks = 2

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def train_begin(self) -> None:
        self.first_epoch = 1

    def epoch_begin(self, epoch: int) -> None:
        self.seen.append(("epoch", epoch))

    def call(self, hook: str, *arguments: Any) -> None:
        if "batch" in hook:
            self.seen.append((hook.removeprefix("on_train_batch_"), arguments[0]))


def test_callbacks_see_the_first_and_last_of_the_batches_between_its_looks() -> None:
    world, looks = _World(), _Looks()
    run(world, lambda _: EpochBatches([0], 4), TrainingPlan(epochs=2), Hooks(callbacks=looks))
    assert looks.seen == [("epoch", 1), ("begin", 0), ("end", 1), ("begin", 2), ("end", 3)]
    assert sum(world.calls) == 4
    assert max(world.calls) <= 2


def test_loggers_are_told_in_their_order() -> None:
    told: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def updates_made(self, report: UpdatesReport) -> None:
            told.append(f"{self.name} updates")

        def epoch_ended(self, report: EpochReport) -> None:
            told.append(f"{self.name} epoch")

    world = _World()
    hooks = Hooks(loggers=[Named("a"), Named("b")])
    run(world, lambda _: EpochBatches([0], 1), TrainingPlan(epochs=1), hooks)
    assert told == ["a updates", "b updates", "a epoch", "b epoch"]


def test_iterator_of_unknown_length_is_drawn_one_by_one_to_its_end() -> None:
    world = _World(length=7)
    assert world.run(TrainingPlan(epochs=2, log_every=3), None) == 14
    assert world.calls == [1] * 14
    assert [report.step for report in world.reports] == [*range(1, 8)] * 2


@pytest.mark.parametrize("steps", [None, 3, 0])
def test_epoch_without_a_batch_is_refused(steps: int | None) -> None:
    with pytest.raises(ConfigError, match=r"\Aepoch 1 has no batch[^\n]*\Z"):
        _World(length=0).run(TrainingPlan(epochs=1), steps)


@pytest.mark.parametrize(("bad", "last_loss"), [(1, None), (2, 1.0), (50, 49.0)])
def test_bad_loss_stops_with_the_update_and_the_loss_before_it(bad: int, last_loss: float | None) -> None:
    world = _World(bad_update=bad)
    with pytest.raises(DivergenceError, match=rf"\Aupdate {bad} [^\n]*\Z") as caught:
        world.run(TrainingPlan(epochs=3), 30)
    error = caught.value
    assert (error.update, error.learning_rate, error.last_loss) == (bad, 1 / bad, last_loss)
    assert world.iterations.value == bad - 1
    assert all(np.isfinite(report.losses).all() for report in world.reports)


@given(
    rows=st.lists(st.lists(st.floats(-(2**20), 2**20, width=32), min_size=3, max_size=3), min_size=1, max_size=40),
    cuts=st.sets(st.integers(1, 39)),
)
def test_sums_have_the_same_bits_however_rows_are_grouped(rows: list[list[float]], cuts: set[int]) -> None:
    reports = np.array(rows, "float32")
    whole, grouped = add_up(None, reports), None
    for group in np.split(reports, sorted(partition for partition in cuts if partition < len(reports))):
        grouped = add_up(grouped, group)
    assert grouped is not None
    assert whole is not None
    assert grouped == whole
    np.testing.assert_allclose(whole, reports.astype(np.float64).sum(0), rtol=1e-9, atol=1e-6)


def test_adding_up_leaves_its_arguments_alone() -> None:
    reports = np.ones((3, 2), "float32")
    sums = add_up(None, reports[:1])
    assert add_up(sums, reports[1:]) == (3.0, 3.0)
    assert sums == (1.0, 1.0)
    np.testing.assert_array_equal(reports, np.ones((3, 2)))
