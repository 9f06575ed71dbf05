"""The process of a search: trials handed out and heard in any order, workers lost, executors that fail."""

import dataclasses
import random
import re
import tempfile
import threading
import warnings
from concurrent import futures
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from cases import here
from fake_executors import Drawn, Killed, Odd, drawn, ended
from fake_trials import SLICES, FakeTrainer, Sessions, table
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.errors import ConfigError, DataError, PeerLostError, StorageError, TfmbError
from tfmb.tuning import scheduler, turns
from tfmb.tuning.executors.adapt import adapt
from tfmb.tuning.executors.base import Executor
from tfmb.tuning.oracles.journal import Journal
from tfmb.tuning.trials import slices
from tfmb.tuning.trials.slices import SliceReport
from tfmb.tuning.trials.states import kept
from tfmb.tuning.turns import WEIGHTS


def whole(kind: str, folder: Path, pruned: bool, size: int | None, executor: Drawn, **given: Any) -> list[Any]:
    """The table of a whole search by an executor whose calls end in an order that is drawn."""
    folder.mkdir(parents=True)
    sessions = Sessions(kind, folder, pruned, **given)
    with drawn(executor):
        found = sessions.run(executor, size)
    assert len(set(sessions.trainer.ran)) == len(sessions.trainer.ran)  # no slice was trained twice
    return found


ROUNDS = [
    ("bayesian", False, 2),
    ("bayesian", True, 3),
    ("hyperband", False, 3),
    ("hyperband", False, 5),
    ("random", True, 4),
]


@pytest.mark.compile
@pytest.mark.parametrize(("kind", "pruned", "size"), ROUNDS)
def test_equal_rounds_give_equal_trials_in_whichever_order_they_end(
    kind: str, pruned: bool, size: int, tmp_path: Path
) -> None:
    most = 8 if kind == "bayesian" else 14
    expected = whole(kind, tmp_path / "in order", pruned, size, Drawn(size), most=most)
    for seed in range(3 if kind == "bayesian" else 10):
        executor = Drawn(size + seed % 2, random.Random(seed).randrange)
        assert whole(kind, tmp_path / str(seed), pruned, size, executor, most=most) == expected
        assert executor.widest == size
    one_by_one = Sessions(kind, tmp_path, pruned, most)
    assert one_by_one.run(Executor(), size) == expected  # in this process, which ends each call at once


@given(st.randoms(use_true_random=False), st.sampled_from([1, 2, 3, 7]))
@settings(max_examples=5)
def test_without_rounds_a_random_search_has_the_same_trials_in_any_order(draw: random.Random, workers: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(slices, "_REPORT_SECONDS", draw.choice([-1.0, 10.0]))
        found = whole("random", Path(folder, "drawn"), False, None, Drawn(workers, draw.randrange), most=6)
        assert found == whole("random", Path(folder, "alone"), False, 1, Drawn(1), most=6)


KINDS = [("random", False), ("random", True), ("grid", False), ("hyperband", False), ("bayesian", True)]


@pytest.mark.compile
@pytest.mark.parametrize(("kind", "pruned"), here(KINDS, KINDS[:4], several=True))
def test_several_workers_do_each_trial_once(kind: str, pruned: bool, tmp_path: Path) -> None:
    draw = random.Random(1)
    found = whole(kind, tmp_path / "s", pruned, None, Drawn(3, draw.randrange))
    again = Sessions(kind, tmp_path / "s", pruned)
    reports = [(event["trial"], event["slice"]) for event in again.events() if event["event"] == "report"]
    assert len(set(reports)) == len(reports)
    with Journal(tmp_path / "s" / "journal.jsonl") as journal:
        oracle = again.oracle(journal)
        assert not oracle.ongoing_trials
        assert table(oracle) == found


@pytest.mark.parametrize("saved", [-1.0, 10.0])
@pytest.mark.parametrize(("kind", "pruned"), [("random", True), ("hyperband", False), ("grid", False)])
def test_early_reports_change_no_bit(
    kind: str, pruned: bool, saved: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(kind, tmp_path / "s", pruned, 2, Drawn(2))
    monkeypatch.setattr(slices, "_REPORT_SECONDS", -1.0)
    monkeypatch.setattr(turns, "_SAVE_SECONDS", saved)
    executor = Drawn(2, random.Random(0).randrange)
    assert whole(kind, tmp_path / "early", pruned, 2, executor) == expected
    assert len(executor.tasks) == sum(len(range(len(task.begun), task.until)) > 0 for task in executor.tasks)
    assert any(0 < len(task.begun) < task.until - 1 for task in executor.tasks)


@pytest.mark.parametrize(("kind", "pruned"), [("random", False), ("random", True), ("hyperband", False)])
@pytest.mark.parametrize("size", [1, 3])
def test_a_search_that_is_killed_at_any_instant_comes_to_the_same_end(
    kind: str, pruned: bool, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "_REPORT_SECONDS", -1.0)
    monkeypatch.setattr(turns, "_SAVE_SECONDS", -1.0)
    executor = Drawn(size)
    expected = whole(kind, tmp_path / "whole", pruned, size, executor)
    for killed_after in range(0, len(executor.tasks), 7 if pruned else 29):
        sessions = Sessions(kind, tmp_path / str(killed_after), pruned)
        sessions.folder.mkdir()
        with pytest.raises(Killed), drawn(Drawn(size, most=killed_after)) as cut:
            sessions.run(cut, size)
        with drawn(Drawn(size)) as again:
            assert sessions.run(again, size) == expected
        done = len(set(sessions.trainer.ran))
        assert len(sessions.trainer.ran) <= done + size  # what was in flight at the most


@pytest.mark.compile
@pytest.mark.parametrize(
    ("kind", "pruned"),
    here([("random", True), ("hyperband", False), ("bayesian", True)], [("random", True)], several=True),
)
def test_every_prefix_of_the_journal_of_rounds_leads_to_the_same_end(kind: str, pruned: bool, tmp_path: Path) -> None:
    most = 8 if kind == "bayesian" else 12
    expected = whole(kind, tmp_path / "whole", pruned, 3, Drawn(3), most=most)
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for cut in range(0, len(lines), 17 if kind == "bayesian" else 3):
        sessions = Sessions(kind, tmp_path / str(cut), pruned, most)
        sessions.folder.mkdir()
        (sessions.folder / "journal.jsonl").write_bytes(b"".join(lines[:cut]))
        assert sessions.run(Executor(), 3) == expected, cut


def test_a_worker_that_is_lost_has_its_slice_done_again_from_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole("random", tmp_path / "whole", False, None, Drawn(2))
    monkeypatch.setattr(slices, "_REPORT_SECONDS", -1.0)
    lost: set[str] = set()

    def is_lost(task: Any) -> bool:
        if len(task.begun) != 4 or task.trial in lost:
            return False
        lost.add(task.trial)
        return True

    sessions = Sessions("random", tmp_path)
    with drawn(Drawn(2, is_lost=is_lost)) as executor:
        assert sessions.run(executor, None) == expected
    assert len(lost) > 5
    ran = sessions.trainer.ran
    assert {slice_ for *_, slice_ in (one for one in ran if ran.count(one) > 1)} == {5}  # and no slice before it


def test_a_trial_whose_worker_is_lost_three_times_fails_and_the_others_go_on(tmp_path: Path) -> None:
    with drawn(Drawn(2, is_lost=lambda task: task.trial == "02")) as executor:
        found = Sessions("random", tmp_path).run(executor, None)
    assert sum(task.trial == "02" for task in executor.tasks) == scheduler.MOST_DEATHS
    by_trial = {trial: (fate, cause) for trial, _, fate, cause, _ in found}
    assert by_trial.pop("02") == ("failed", "its worker died 3 times: BrokenExecutor: it was killed")
    assert "failed" not in dict(by_trial.values())


def test_an_executor_that_cannot_be_made_anew_ends_the_search_and_another_goes_on(tmp_path: Path) -> None:
    class Broken(Drawn):
        def new(self, error: BaseException) -> bool:
            return False

    sessions = Sessions("random", tmp_path)
    executor = Broken(2, is_lost=lambda task: task.trial == "03")
    words = r"^the executor takes no more tasks \(BrokenExecutor: it was killed\): the same call with a new one goes on"
    with drawn(executor), pytest.raises(PeerLostError, match=words):
        sessions.run(executor, None)
    assert len(executor.open) == 1
    before = (tmp_path / "journal.jsonl").read_bytes()
    while executor.open:  # a worker that did not hear of the end
        executor.end_one()
    assert (tmp_path / "journal.jsonl").read_bytes() == before
    assert sessions.run() == whole("random", tmp_path / "whole", False, None, Drawn(1))


class Failing(FakeTrainer):
    """Fails for some trials, as a `build` of the user's does."""

    def __init__(self, error: Exception, least: float = 0.0) -> None:
        super().__init__()
        self._error, self._least = error, least

    def run(self, values: Any, goes_on: Any, state: Any, begun: Any, *about: Any) -> Any:
        if values["learning_rate"] >= self._least:
            raise self._error
        return super().run(values, goes_on, state, begun)


@pytest.mark.parametrize("most", [1, 3])
def test_so_many_failed_trials_in_a_row_end_the_search_and_the_same_call_goes_on(most: int, tmp_path: Path) -> None:
    sessions = Sessions("random", tmp_path, most=10)
    sessions.trainer = Failing(KeyError("my\nbug"))
    words = rf"^{most} trials in a row failed, the last one by KeyError: 'my\\nbug': mend it; the same call goes on"
    for calls in (1, 2):
        with pytest.raises(ConfigError, match=words) as ended_by:
            sessions.run(max_failures=most)
        assert "\n" not in str(ended_by.value)
        assert sum(event["event"] == "ended" for event in sessions.events()) == calls * most
    sessions.trainer = FakeTrainer()
    fates = [fate for _, _, fate, _, _ in sessions.run()]
    assert fates[: 2 * most] == ["failed"] * 2 * most
    assert len(fates) == 10
    assert "failed" not in fates[2 * most :]


def out_of_memory() -> Exception:
    from tfmb.backend import tf

    error: Exception = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\n[[node]]")
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (out_of_memory, "ResourceExhaustedError: OOM when allocating tensor"),
        (lambda: MemoryError(), "MemoryError"),
        (lambda: ValueError("units must be positive"), "ValueError: units must be positive"),
        (lambda: AssertionError(), "AssertionError"),
    ],
)
def test_a_trial_that_fails_for_its_values_is_the_worst_and_the_search_goes_on(
    error: Any, cause: str, tmp_path: Path
) -> None:
    sessions = Sessions("random", tmp_path)
    sessions.trainer = Failing(error(), least=0.01)
    with Journal(tmp_path / "journal.jsonl") as journal:
        oracle = sessions.oracle(journal)
        sessions.search(oracle, max_failures=12)
        failed = {trial for trial, progress in oracle.progress.items() if progress.fate == "failed"}
        assert {oracle.progress[trial].cause for trial in failed} == {cause}
        assert 0 < len(failed) < 12
        ranked = [trial.trial_id in failed for trial in oracle.get_best_trials(12)]
        assert ranked == sorted(ranked)


def refuse(error: BaseException) -> Any:
    raise error


def cancelled(report: SliceReport) -> Any:
    future: futures.Future[Any] = futures.Future()
    future.cancel()
    return future


LOST, WRONG = "the executor takes no more tasks", "submit.* must return the future of fn"


@pytest.mark.parametrize(
    ("does", "kind", "words"),
    [
        (lambda report: refuse(RuntimeError("cannot schedule\nafter shutdown")), PeerLostError, LOST),
        (lambda report: refuse(OSError("connection lost")), PeerLostError, LOST),
        (cancelled, PeerLostError, LOST),
        (lambda report: ended(futures.BrokenExecutor("a process died")), PeerLostError, LOST),
        (lambda report: None, ConfigError, "submit returned a NoneType: it must return a future"),
        (lambda report: report, ConfigError, "submit returned a SliceReport: it must return a future"),
        (lambda report: ended("done"), ConfigError, f"a str for trial 01: {WRONG}"),
        (lambda report: ended(None), ConfigError, f"a NoneType for trial 01: {WRONG}"),
        (lambda report: ended(report), ConfigError, f"a SliceReport for trial 01: {WRONG}"),
        (lambda report: ended(KeyError("x\ny")), ConfigError, r"failed in trial 01 \(KeyError: 'x"),
        (lambda report: ended(DataError("the state is damaged")), DataError, "the state is damaged"),
    ],
)
def test_an_executor_that_does_not_do_what_it_must_ends_the_search_in_one_line(
    does: Any, kind: type[TfmbError], words: str, tmp_path: Path
) -> None:
    sessions = Sessions("random", tmp_path / "s")
    sessions.folder.mkdir()
    with pytest.raises(kind, match=words) as ended_by:
        sessions.run(adapt(Odd(does), None, tmp_path))
    assert "\n" not in str(ended_by.value)
    assert [event["event"] for event in sessions.events()].count("ended") == 1
    assert sessions.run() == whole("random", tmp_path / "whole", False, 1, Drawn(1))  # the journal is whole


@pytest.mark.parametrize(
    ("metrics", "words"),
    [({"loss": 1.0}, "there is only loss"), ({"val_loss": float("nan"), "loss": 1.0}, "is no evaluation")],
)
def test_a_report_without_the_objective_is_refused_and_not_noted(
    metrics: dict[str, float], words: str, tmp_path: Path
) -> None:
    class Without(FakeTrainer):
        def run(self, values: Any, goes_on: Any, state: Any, begun: Any, *about: Any) -> Any:
            ran = super().run(values, lambda look: True, state, begun)
            goes_on(dataclasses.replace(ran.history[0], metrics=metrics))
            return ran

    sessions = Sessions("random", tmp_path)
    sessions.trainer = Without(most=1e9)
    with pytest.raises(ConfigError, match=words):
        sessions.run()
    assert [event["event"] for event in sessions.events()] == ["round", "began"]


def test_a_full_disk_is_the_searchs_failure_and_it_goes_on_later(tmp_path: Path) -> None:
    sessions = Sessions("random", tmp_path / "s")
    sessions.folder.mkdir()
    written = [None] * 20 + [OSError(28, "No space left on device")]
    with Journal(sessions.folder / "journal.jsonl") as journal, pytest.MonkeyPatch.context() as patch:
        oracle = sessions.oracle(journal)
        full = mock.Mock(wraps=journal._file)
        full.write.side_effect = lambda line: refuse(error) if (error := written.pop(0)) else mock.DEFAULT
        patch.setattr(journal, "_file", full)
        with pytest.raises(StorageError, match="free some space"):
            sessions.search(oracle)
    assert len(sessions.events()) == 20
    assert sessions.run() == whole("random", tmp_path / "whole", False, 1, Drawn(1))


def test_weights_are_there_before_the_report_that_ends_a_trial(tmp_path: Path) -> None:
    """A search that is killed after that report does not train the trial again, so no one else could write them."""
    sessions = Sessions("random", tmp_path, most=1)
    sessions.trainer = FakeTrainer(most=1e9)
    write = Journal.write

    def killed(self: Journal, event: str, **entries: Any) -> Any:
        found = write(self, event, **entries)
        if event == "report" and entries["slice"] == SLICES:
            raise Killed
        return found

    with mock.patch.object(Journal, "write", killed), pytest.raises(Killed):
        sessions.run()
    ran = len(sessions.trainer.ran)
    ((_, values, fate, _, _),) = sessions.run()
    assert (fate, len(sessions.trainer.ran)) == ("completed", ran)
    assert kept(tmp_path / "trials" / "trial_0" / WEIGHTS) == {"w00000": values["learning_rate"]}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("objective", ["val_loss", "max:val_equal"])
def test_only_the_best_trial_keeps_its_weights(objective: str, seed: int, tmp_path: Path) -> None:
    class Equal(FakeTrainer):
        def run(self, values: Any, goes_on: Any, state: Any, begun: Any, *about: Any) -> Any:
            def equal(look: Any) -> bool:
                return bool(goes_on(dataclasses.replace(look, metrics={**look.metrics, "val_equal": 1.0})))

            return super().run(values, equal, state, begun)

    sessions = Sessions("random", tmp_path, True, objective=objective)
    sessions.trainer = Equal()
    executor = Drawn(3, random.Random(seed).randrange)
    with Journal(tmp_path / "journal.jsonl") as journal, drawn(executor):
        oracle = sessions.oracle(journal)
        sessions.search(oracle, executor, None)
        best = oracle.get_best_trials(1)[0]
    (place,) = tmp_path.glob(f"trials/trial_*/{WEIGHTS}")
    assert place.parents[1].name == f"trial_{best.trial_id}"
    assert kept(place) == {"w00000": best.hyperparameters.values["learning_rate"]}


class Stopping(FakeTrainer):
    """Trials of small batches end by themselves after their second slice, as by a callback."""

    def run(self, values: Any, goes_on: Any, state: Any, begun: Any, *about: Any) -> Any:
        def stays(look: Any) -> bool:
            return bool(goes_on(look)) and not (look.slice == 2 and values["batch_size"] < 200)

        ran = super().run(values, stays, state, begun)
        return ran._replace(ended=len(ran.history) == 2 and values["batch_size"] < 200)


@pytest.mark.compile
def test_a_trial_that_ends_by_itself_is_whole_and_never_goes_on(tmp_path: Path) -> None:
    def run(folder: Path) -> tuple[Sessions, list[Any]]:
        sessions = Sessions("random", folder, True, 20)
        sessions.trainer = Stopping()
        return sessions, sessions.run()

    (tmp_path / "whole").mkdir()
    sessions, expected = run(tmp_path / "whole")
    ended = {trial for trial, values, *_, history in expected if values["batch_size"] < 200 and len(history) == 2}
    assert len(ended) > 2
    assert {fate for trial, _, fate, *_ in expected if trial in ended} == {"completed"}
    assert any(fate == "completed" and len(history) == SLICES for _, _, fate, _, history in expected)
    assert not any(batch < 200 and slice_ > 2 for _, batch, slice_ in sessions.trainer.ran)
    assert {event["trial"] for event in sessions.events() if event.get("early")} == ended
    left = [kept(path)["slices"] for path in (tmp_path / "whole").glob("trials/trial_*/state.npz")]
    assert left
    assert 2 not in left  # nobody goes on from them
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for cut in range(0, len(lines), 5):
        (tmp_path / str(cut)).mkdir()
        (tmp_path / str(cut) / "journal.jsonl").write_bytes(b"".join(lines[:cut]))
        assert run(tmp_path / str(cut))[1] == expected, cut


def test_a_trial_that_reached_the_target_on_a_rung_is_not_called_back(tmp_path: Path) -> None:
    sessions = Sessions("random", tmp_path, True, 20, "updates:val_loss<=2.5")
    sessions.run()
    ran = [(rate, batch, slice_) for rate, batch, slice_ in sessions.trainer.ran]
    assert len(set(ran)) == len(ran)


class Late(Executor):
    """Elsewhere: the first call takes longer than all others."""

    def __init__(self, sees_hanging: bool) -> None:
        super().__init__()
        self.sees_hanging, self._calls = sees_hanging, 0

    def submit(self, fn: Any, *args: Any) -> Any:
        self._calls += 1
        future: futures.Future[Any] = futures.Future()
        seconds = 0.7 if self._calls == 1 else 0.0
        threading.Timer(seconds, lambda: future.set_result(fn(*args))).start()
        return future


@pytest.mark.parametrize("sees", [False, True])
def test_a_slice_that_takes_far_longer_is_named_where_nobody_sees_a_worker_hang(
    sees: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFMB_JOIN_SECONDS", "0.1")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Sessions("random", tmp_path, most=3).run(Late(sees))
    lines = [str(each.message) for each in told if each.category is UserWarning]
    assert len(lines) == (0 if sees else 1)
    found = r"trial \d+ on worker-0 has not reported for \d+ s, and no slice before took more than 0 s: if it hangs, "
    assert all(re.fullmatch(found + "end its worker, and the slice is done again", line) for line in lines)
