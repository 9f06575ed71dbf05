"""The executor of this process, data that travel by a file, and futures of other engines."""

import pickle
import stat
import threading
from concurrent.futures import BrokenExecutor, CancelledError
from pathlib import Path
from typing import Any

import pytest
from fake_trials import Shared

from tfmb.errors import ConfigError
from tfmb.tuning.by_value import pickled
from tfmb.tuning.executors.base import Executor, followed


def test_a_call_in_this_process_has_ended_when_it_is_submitted() -> None:
    here = Executor()
    assert here.submit(divmod, 7, 2).result() == (3, 1)
    assert isinstance(here.submit(divmod, 7, 0).exception(), ZeroDivisionError)
    assert here.put("data") == "data"
    assert (here.workers, here.new(OSError())) == (1, True)


def test_what_ends_this_process_is_kept_in_no_future() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Executor().submit(interrupted)


def test_data_lie_in_a_file_for_their_owner_alone(tmp_path: Path) -> None:
    with Executor(folder=tmp_path / "handover") as executor:
        found = executor.put(Shared("abc"))
        assert pickle.loads(found.read_bytes()) == Shared("abc")
        assert stat.S_IMODE(found.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "handover").stat().st_mode) == 0o700
    assert not (tmp_path / "handover").exists()


def test_a_folder_that_may_be_anothers_is_refused_and_left(tmp_path: Path) -> None:
    (tmp_path / "handover").mkdir()
    with (
        pytest.raises(ConfigError, match="handover is there already, and may be another's: remove it"),
        Executor(folder=tmp_path / "handover") as executor,
    ):
        executor.put(Shared("abc"))
    assert (tmp_path / "handover").exists()


def test_code_travels_by_value_and_what_cannot_is_refused_in_one_line() -> None:
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


@pytest.mark.parametrize(
    ("outcome", "becomes"),
    [(3, 3), *((kind("it\ndied"), kind) for kind in (KeyError, BrokenExecutor, CancelledError, SystemExit))],
)
def test_jobs_of_all_kinds_become_futures(outcome: Any, becomes: Any) -> None:
    found = followed(Job(outcome))
    error = found.exception(timeout=60)
    assert found.result() == becomes if error is None else type(error) is becomes
    assert Executor().is_loss(error) == (becomes is BrokenExecutor)
