"""Times in rounds, on a machine whose load and pace are made up: what is told, measured again, and made of it."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tfmb.advice.processor import Meanwhile, Processor
from tfmb.advice.rounds import Rounds, draws_of, time_in_rounds

SIZES = [32, 64, 128]
TRUE = {32: 0.0010, 64: 0.0013, 128: 0.0020}
QUIET, BUSY = Meanwhile(cores=2, others=0.05, idle=0.8), Meanwhile(cores=2, others=0.9, idle=0.0)


class Machine:
    """Takes the true time of each update, times what its pace is in a round; `taken` says who had the cores in it."""

    def __init__(
        self,
        pace: Callable[[int], float] = lambda number: 1.0,
        taken: Callable[[int], Meanwhile] = lambda number: QUIET,
    ) -> None:
        self.pace, self.taken = pace, taken
        self.asked: list[int] = []
        self.said: list[str] = []
        self._random = np.random.default_rng(0)

    @property
    def round(self) -> int:
        return len(self.asked) // len(SIZES)

    def time_update(self, size: int) -> float:
        seconds = TRUE[size] * self.pace(self.round) * float(np.exp(0.01 * self._random.normal()))
        self.asked.append(size)
        return seconds

    def meanwhile(self) -> Meanwhile:
        return self.taken(self.round - 1)

    def rounds(self, is_over: Callable[[], bool] = lambda: False) -> Rounds:
        return time_in_rounds(self.time_update, SIZES, self.meanwhile, is_over=is_over, say=self.said.append)


def near(found: Rounds, share: float = 0.03) -> bool:
    return all(abs(statistics.median(found.seconds[size]) / TRUE[size] - 1) < share for size in SIZES)


def test_each_round_times_every_size_once_there_and_back() -> None:
    machine = Machine()
    found = machine.rounds()
    assert machine.asked == [*SIZES, *SIZES[::-1], *SIZES, *SIZES[::-1], *SIZES]
    assert near(found)
    assert (found.trouble, found.share_left, machine.said) == (None, 1.0, [])


def test_a_busy_machine_is_told_and_only_its_quiet_rounds_count() -> None:
    busy = {1, 2, 4, 6}
    machine = Machine(lambda n: 2.5 if n in busy else 1.0, lambda n: BUSY if n in busy else QUIET)
    found = machine.rounds()
    assert near(found)
    assert len(found.seconds[64]) == 6
    assert found.trouble is None
    told = "the machine is busy: while updates were timed, others took 0.6 of 2 core(s); measured again"
    assert machine.said == [told]


def test_a_machine_that_stays_busy_keeps_its_trouble_and_what_others_left() -> None:
    machine = Machine(lambda n: 2.0, lambda n: BUSY)
    found = machine.rounds()
    assert len(machine.asked) == 10 * len(SIZES)  # bounded
    assert found.trouble == "the machine is busy: while updates were timed, others took 0.9 of 2 core(s)"
    assert found.share_left == pytest.approx(1 / 1.9)
    for size in SIZES:
        low, high = np.percentile(draws_of(found.seconds[size], found.share_left, size), [5, 95])
        assert low < 1.2 * TRUE[size] < high  # what it takes on a quiet machine is nearly half of what was measured


def test_a_pace_that_changed_is_told_and_what_came_before_forgotten() -> None:
    machine = Machine(lambda n: 1.6 if n < 3 else 1.0)
    found = machine.rounds()
    assert near(found)
    assert len(found.seconds[64]) == 5
    assert machine.said == [
        "the pace changed: in the last rounds an update took 0.62 times as long as in the first; measured again"
    ]
    slower = Machine(lambda n: 1.1**n)
    assert "the pace changed" in (slower.rounds().trouble or "")


def test_times_that_differ_from_round_to_round_are_told_and_widen_what_is_drawn() -> None:
    paces = [1.0, 2.0, 1.0, 2.0, 1.0] * 2
    machine = Machine(lambda n: paces[n])
    found = machine.rounds()
    assert "the pace is unsteady: an update of batch size 32 took 0.98 to 2 ms; measured again" in machine.said
    low, high = np.percentile(draws_of(found.seconds[64]), [5, 95])
    assert high > 1.25 * low
    steady = draws_of(Machine().rounds().seconds[64])
    assert np.percentile(steady, 95) < 1.05 * np.percentile(steady, 5)


def test_one_size_that_is_slow_in_one_round_changes_nothing() -> None:
    """What a burst makes of a batch size that is timed once in a row: five times its time, and nobody knows."""
    machine = Machine()
    time_update = machine.time_update
    machine.time_update = lambda size: time_update(size) * (5 if size == 64 and machine.round == 2 else 1)  # type: ignore[method-assign]
    assert near(machine.rounds())


def test_the_time_may_be_over_after_one_round() -> None:
    machine = Machine()
    found = machine.rounds(lambda: True)
    assert machine.asked == SIZES
    assert [len(found.seconds[size]) for size in SIZES] == [1, 1, 1]


def test_nobody_tells_who_had_the_cores() -> None:
    found = time_in_rounds(Machine().time_update, SIZES, lambda: None)
    assert near(found)
    assert found.trouble is None


def stat(*cores: Sequence[int]) -> str:
    """As in /proc/stat: the sum of all, each core, and more."""
    lines = [f"cpu{place} " + " ".join(map(str, core)) for place, core in enumerate(cores)]
    return "\n".join(["cpu  " + " ".join(map(str, np.sum(cores, axis=0))), *lines, "intr 5 6 7"])


def test_who_had_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counts = tmp_path / "stat"
    monkeypatch.setattr("tfmb.advice.processor._COUNTS", counts)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})  # the third core is not ours
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    clock = [10.0, 3.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("time.process_time", lambda: clock[1])
    counts.write_text(stat([100, 0, 50, 900, 10, 0, 0, 0, 7, 7], [300, 0, 0, 700, 0, 0, 0, 0, 0, 0], [0] * 10))
    processor = Processor()
    clock[:] = [12.0, 4.5]
    counts.write_text(stat([240, 10, 90, 900, 20, 0, 0, 0, 7, 7], [430, 0, 20, 700, 0, 0, 0, 50, 0, 0], [200] * 10))
    found = processor.meanwhile()
    assert found is not None
    assert (found.cores, found.others, found.idle) == (2, pytest.approx((3.9 - 1.5) / 2), pytest.approx(0.05))
    assert found.disturbed
    counts.unlink()
    assert processor.meanwhile() is None


@pytest.mark.parametrize(("others", "idle", "disturbed"), [(0.9, 0.0, True), (0.9, 1.0, False), (0.1, 0.0, False)])
def test_others_disturb_where_they_leave_nothing(others: float, idle: float, disturbed: bool) -> None:
    assert Meanwhile(cores=2, others=others, idle=idle).disturbed == disturbed
