"""The executor of this process, data that travel by a file, and futures of other engines."""

import stat
import threading
from concurrent.futures import BrokenExecutor, CancelledError, Future
from pathlib import Path
from typing import Any

import pytest
from fake_trials import Shared

from tfmb.errors import ConfigError
from tfmb.tuning.executors.base import Executor, WorkerLostError, as_future, on_disk, pickled


def test_a_call_in_this_process_has_ended_when_it_is_submitted() -> None:
    here = Executor()
    assert here.submit(divmod, 7, 2).result() == (3, 1)
    assert isinstance(here.submit(divmod, 7, 0).exception(), ZeroDivisionError)
    assert here.put("data") == "data"
    assert (here.workers, here.new()) == (1, True)


def test_what_ends_this_process_is_kept_in_no_future() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Executor().submit(interrupted)


def test_data_lie_in_a_file_for_their_owner_alone(tmp_path: Path) -> None:
    found = on_disk(Shared("abc"), tmp_path / "handover")
    assert found.fingerprint == "abc"
    assert found.load() == Shared("abc")
    assert stat.S_IMODE(Path(found.path).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "handover").stat().st_mode) == 0o700


def test_code_travels_by_value_and_what_cannot_is_refused_in_one_line() -> None:
    import pickle

    factor = 3
    assert pickle.loads(pickled(lambda x: factor * x, "build"))(2) == 6
    lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"^build cannot be handed to workers \(.*lock.*\): let it make") as refused:
        pickled(lambda: lock, "build")
    assert "\n" not in str(refused.value)


class Job:
    """Of submitit's kind: it can be waited for, and calls nobody."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def result(self) -> Any:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def is_loss(error: BaseException) -> bool:
    return isinstance(error, BrokenExecutor)


@pytest.mark.parametrize("calls_back", [False, True])
@pytest.mark.parametrize(
    ("outcome", "becomes"),
    [
        (3, 3),
        (KeyError("x"), KeyError),
        (BrokenExecutor("it\ndied"), WorkerLostError),
        (CancelledError(), CancelledError),
        (SystemExit(1), SystemExit),
    ],
)
def test_futures_of_all_kinds_become_one(outcome: Any, becomes: Any, calls_back: bool) -> None:
    given: Any = Job(outcome)
    if calls_back:
        given = Future()
        given.set_exception(outcome) if isinstance(outcome, BaseException) else given.set_result(outcome)
    found = as_future(given, is_loss)
    error = found.exception(timeout=60)
    assert found.result() == becomes if error is None else type(error) is becomes
    if becomes is WorkerLostError:
        assert str(error) == "it died"


@pytest.mark.parametrize("given", [None, 3, "done"])
def test_what_is_no_future_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=f"submit returned a {type(given).__name__}: it must return a future"):
        as_future(given, is_loss)
