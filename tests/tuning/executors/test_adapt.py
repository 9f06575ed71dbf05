"""What a user may give as `executor=`, and what is refused before anything begins."""

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from fake_trials import Shared

from tfmb.errors import ConfigError
from tfmb.tuning.executors.adapt import adapt
from tfmb.tuning.executors.base import Executor
from tfmb.tuning.executors.local import LocalProcesses


class Mine:
    """An executor of a user's, who ends it."""

    def __init__(self, **has: Any) -> None:
        self.done: list[Any] = []
        self.__dict__.update(has)

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        self.done.append(args)
        future: futures.Future[Any] = futures.Future()
        future.set_exception(futures.BrokenExecutor("a process died"))
        return future

    def shutdown(self) -> None:
        raise AssertionError("it is the user's to end")


def test_one_worker_is_this_process_and_more_are_processes(tmp_path: Path) -> None:
    assert type(adapt(None, None, tmp_path)) is type(adapt(None, 1, tmp_path)) is Executor
    several = adapt(None, 2, tmp_path)
    try:
        assert (type(several), several.workers) == (LocalProcesses, 2)
    finally:
        several.close()


@pytest.mark.parametrize(("has", "given", "found"), [
    ({"workers": 3}, None, 3), ({"_max_workers": 4}, None, 4), ({"_max_workers": 4, "workers": 3}, 2, 2), ({}, 5, 5),
])  # fmt: skip
def test_as_many_tasks_as_it_says_or_the_user(
    has: dict[str, Any], given: int | None, found: int, tmp_path: Path
) -> None:
    assert adapt(Mine(**has), given, tmp_path).workers == found


def test_it_must_be_known_how_many_tasks_run_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Mine does not say how many tasks it runs at once: give workers=N"):
        adapt(Mine(), None, tmp_path)


def test_threads_are_refused(tmp_path: Path) -> None:
    class Subclass(futures.ThreadPoolExecutor):
        pass

    for kind in (futures.ThreadPoolExecutor, Subclass):
        with kind(2) as pool, pytest.raises(ConfigError, match=r"threads share one TensorFlow.*: give processes"):
            adapt(pool, None, tmp_path)


def test_forked_processes_are_refused_and_others_are_not(tmp_path: Path) -> None:
    for context in ("spawn", "forkserver"):
        with futures.ProcessPoolExecutor(2, multiprocessing.get_context(context)) as pool:
            assert adapt(pool, None, tmp_path).workers == 2
    fork = multiprocessing.get_context("fork")
    with futures.ProcessPoolExecutor(2, fork) as pool, pytest.raises(ConfigError, match=r"mp_context=.*'spawn'"):
        adapt(pool, None, tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("slurm:here", "executor is 'slurm:here': give an object with submit"),
        (3, "executor is a int: give an object with submit"),
        (multiprocessing, "executor is a module: give an object with submit"),
    ],
)
def test_what_cannot_run_trials_is_refused(given: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        adapt(given, None, tmp_path)


def test_data_go_by_its_own_put_or_by_a_file_that_is_removed(tmp_path: Path) -> None:
    assert adapt(Mine(workers=1, put=lambda data: ("put", data)), None, tmp_path).put("data") == ("put", "data")
    given = adapt(Mine(workers=1), None, tmp_path / "search")
    found = given.put(Shared("abc"))
    assert found.is_relative_to(tmp_path / "search")
    assert pickle.loads(found.read_bytes()) == Shared("abc")
    given.close()
    assert not found.exists()


def test_a_broken_pool_is_made_anew_only_by_its_own_means(tmp_path: Path) -> None:
    made: list[bool] = []
    without, having = (
        adapt(Mine(workers=1), None, tmp_path),
        adapt(Mine(workers=1, new=lambda: made.append(True)), 1, tmp_path),
    )
    error = without.submit(print).exception()
    assert error is not None
    assert without.is_loss(error)
    assert (without.new(error), having.new(error), made) == (False, True, [True])


def test_a_job_of_its_own_process_that_died_breaks_nothing(tmp_path: Path) -> None:
    class UncompletedJobError(Exception):  # as submitit's is called
        pass

    class Jobs(Mine):
        def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
            future: futures.Future[Any] = futures.Future()
            future.set_exception(UncompletedJobError("the job has no output"))
            return future

    executor = adapt(Jobs(workers=1), None, tmp_path)
    error = executor.submit(print).exception()
    assert error is not None
    assert executor.is_loss(error)
    assert executor.new(error)


@pytest.mark.parametrize("given", [None, 3, "done"])
def test_what_is_no_future_is_refused(given: Any, tmp_path: Path) -> None:
    class Odd(Mine):
        def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
            return given

    with pytest.raises(ConfigError, match=f"submit returned a {type(given).__name__}: it must return a future"):
        adapt(Odd(workers=1), None, tmp_path).submit(print)
