"""`workers=N`, real processes of this machine: the same trials, and what becomes of the search when one dies."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import worker_trials
from cases import here
from search_processes import (
    assert_whole,
    begin,
    children_of,
    command,
    events,
    is_alive,
    listens,
    wait_for,
    workers_of,
)
from worker_trials import MARK, TUNE, X, Y

import tfmb
from tfmb.backend import keras
from tfmb.errors import ConfigError
from tfmb.tuning import signs
from tfmb.tuning.executors.base import WorkerLostError
from tfmb.tuning.executors.local import LocalProcesses
from tfmb.tuning.result import SearchResult

MUCH, LOCK = bytes(65 * 2**20), threading.Lock()


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("it holds a socket")


def tune(build: Any = worker_trials.build, **given: Any) -> SearchResult:
    return tfmb.tune(build, X, Y, **{**TUNE, "workers": 2, **given})


@pytest.mark.process
@pytest.mark.sample
def test_two_workers_do_what_one_process_does(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    alone = tune(workers=1)
    seen: list[int] = []
    found = tune(run_dir=tmp_path / "s", watch=lambda record: seen.append(len(record.trials)))
    assert [(t.trial, t.values, t.fate) for t in found.trials] == [(t.trial, t.values, t.fate) for t in alone.trials]
    for one, other in zip(found.trials, alone.trials, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-5)
    assert {trial.worker for trial in found.trials} <= {"worker-0", "worker-1"}
    assert seen
    assert seen == sorted(seen)
    logs = tfmb.evaluate(found.best_model(), X, Y, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "accuracy"}
    again = tune(run_dir=tmp_path / "s", workers=3, max_trials=6)
    assert again.record.trials == found.record.trials
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert workers_of(os.getpid()) == []


@pytest.mark.process
def test_a_loss_and_metrics_are_handed_on_and_arrays_in_a_dict() -> None:
    given: dict[str, Any] = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    given |= {"metrics": ["accuracy"], "max_trials": 2, "objective": "val_accuracy", "workers": 2}
    found = tfmb.tune(worker_trials.build_pair, {"a": X, "b": X}, Y, **{**TUNE, **given})
    assert [trial.fate for trial in found.trials] == ["completed"] * 2


@pytest.mark.process
def test_what_a_function_defines_is_handed_on_by_value() -> None:
    class Twice(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return factor * inputs

    def built(hp: Any) -> Any:
        return keras.Sequential([keras.Input((5,)), Twice(), keras.layers.Dense(hp.Choice("units", units))])

    def far_off(y_true: Any, y_pred: Any) -> Any:
        return factor * keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)

    factor, units = 2.0, [2, 3]
    given: dict[str, Any] = {"loss": far_off, "max_trials": 2}
    found, alone = tune(built, **given), tune(built, workers=1, **given)
    assert [trial.fate for trial in found.trials] == ["completed"] * 2
    for one, other in zip(found.trials, alone.trials, strict=True):
        assert (one.values, one.score) == (other.values, pytest.approx(other.score, rel=1e-5))


CELL = """
import sys
import tfmb
from tfmb.backend import keras
from worker_trials import TUNE, X, Y

units = [4, 8]

class Twice(keras.layers.Layer):
    def call(self, inputs):
        return 2.0 * inputs

def build(hp):
    hidden = keras.layers.Dense(hp.Choice("units", units))
    model = keras.Sequential([keras.Input((5,)), Twice(), hidden, keras.layers.Dense(2)])
    model.compile(None, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model

found = tfmb.tune(build, X, Y, **{**TUNE, "max_trials": 2}, workers=2)
print([trial.fate for trial in found.trials])
"""


@pytest.mark.process
def test_what_a_notebooks_cell_defines_is_handed_on_by_value() -> None:
    """There is no `if __name__ == "__main__"` in a cell, and no file that a worker could import."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-"], input=CELL, capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout == "['completed', 'completed']\n", done.stderr


@pytest.mark.process
def test_an_error_in_the_users_code_is_told_in_one_line_after_three_trials(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"^3 trials in a row failed, the last one by KeyError: 'my bug': mend it"):
        tune(worker_trials.build_broken, run_dir=tmp_path / "s")
    captured = capfd.readouterr()
    assert "Traceback" in captured.err
    assert captured.out == ""
    assert workers_of(os.getpid()) == []
    found = tune(run_dir=tmp_path / "s", workers=1)  # mended, it goes on past them
    # The third one to fail need not be the third one that began.
    assert sorted(trial.fate for trial in found.trials) == [*["completed"] * 3, *["failed"] * 3]


@pytest.mark.process
def test_a_worker_that_dies_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    found = tune(worker_trials.build_dies_once, run_dir=tmp_path / "s")
    assert (tmp_path / "mark").exists()
    assert [trial.fate for trial in found.trials] == ["completed"] * 6
    assert_whole(tmp_path / "s", 6)


@pytest.mark.slow
def test_trials_whose_workers_die_again_and_again_end_the_search(tmp_path: Path) -> None:
    words = r"^3 trials in a row failed, the last one by its worker died 3 times: .*: mend it"
    with pytest.raises(ConfigError, match=words):
        tune(worker_trials.build_dies, run_dir=tmp_path / "s")
    assert workers_of(os.getpid()) == []
    fates = [trial.fate for trial in tune(run_dir=tmp_path / "s", workers=1).trials]
    assert fates == [*["failed"] * 3, *["completed"] * 3]


def pause_then(number: int) -> int:
    time.sleep(0.05)
    return number


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.process
def test_the_death_of_a_process_breaks_no_other_and_its_place_is_filled(tmp_path: Path) -> None:
    processes = LocalProcesses(2, tmp_path / "handover")
    try:
        lost, kept = processes.submit(die), processes.submit(pause_then, 3)
        assert isinstance(lost.exception(120), WorkerLostError)
        assert kept.result(120) == 3
        more = [processes.submit(pause_then, number) for number in range(6)]  # more than there are processes
        assert [future.result(120) for future in more] == list(range(6))
        assert len({processes.submit(os.getpid).result(120) for _ in range(2)}) == 2
        assert len(workers_of(os.getpid())) == 2
    finally:
        processes.close()
    assert workers_of(os.getpid()) == []


@pytest.mark.process
def test_nothing_is_left_of_a_search_that_is_refused_or_interrupted(tmp_path: Path) -> None:
    def interrupt(record: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(run_dir=tmp_path / "s", watch=interrupt)
    with pytest.raises(ConfigError, match="holds a search with another seed"):
        tune(run_dir=tmp_path / "s", seed=5)
    assert not (tmp_path / "s" / "handover").exists()
    assert workers_of(os.getpid()) == []


ENDS = here([(signal.SIGKILL, -9), (signal.SIGTERM, 75), (signal.SIGINT, 130)], [(signal.SIGKILL, -9)], several=True)


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), ENDS)
def test_no_process_outlives_the_searchs_and_the_same_call_goes_on(number: int, code: int, tmp_path: Path) -> None:
    def heed() -> None:  # whoever runs the tests in the background may have it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    # trials of seconds each: most of the search is still to come when the first of them has ended
    whole = command(tmp_path / "s", "--workers", "2", "--no-prune", epochs=40)
    with begin(whole, preexec_fn=heed) as process:
        wait_for(lambda: process.poll() is not None or "ended" in [event["event"] for event in events(tmp_path / "s")])
        below = children_of(process.pid)
        assert len(workers_of(process.pid)) == 2, below
        assert any("resource_tracker" in words for words in below.values())
        assert not any(map(listens, [process.pid, *below]))
        os.kill(process.pid, number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == code, said
        wait_for(lambda: not any(map(is_alive, below)))
        assert "Traceback" not in said
    done = subprocess.run(whole, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"] == 6
    assert_whole(tmp_path / "s", 6)


@pytest.mark.process
def test_a_process_that_is_killed_in_a_search_is_started_again_and_the_trial_goes_on(tmp_path: Path) -> None:
    with begin(command(tmp_path / "s", "--workers", "2", "--no-prune", epochs=40)) as process:
        wait_for(lambda: process.poll() is not None or "report" in [event["event"] for event in events(tmp_path / "s")])
        before = workers_of(process.pid)
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: process.poll() is not None or set(workers_of(process.pid)) - set(before))
        found, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert json.loads(found)["trials"] == 6
    assert_whole(tmp_path / "s", 6)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"workers": 0}, "workers=0 must be an integer"),
        ({"build": lambda hp: LOCK}, r"^build cannot be handed to workers \(.*lock.*\): let it make"),
        ({"build": lambda hp: MUCH}, "^build uses 65 MiB of this process's values, and workers take at most 64"),
        ({"build": keras.Sequential()}, "^build is a Sequential: give a function"),
        ({"build": worker_trials.build_plain, "loss": Unpicklable()}, "^loss cannot be handed to workers"),
        ({"build": worker_trials.build_plain, "metrics": [LOCK]}, "^metrics cannot be handed to workers"),
        ({"strategy": object()}, "give strategy by name"),
        ({"strategy": "multi-worker"}, "strategy 'multi-worker' splits one training"),
        ({"round_size": 0}, "round_size=0 must be an integer"),
        ({"max_failures": 0}, "max_failures=0 must be an integer"),
    ],
)
def test_what_cannot_be_handed_over_is_refused(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        tune(run_dir=tmp_path / "s", **given)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "s").exists()


def hang_then(number: int) -> int:
    """Gives signs for a while; a worker that got no number hangs."""
    for _ in range(8):
        time.sleep(0.5)
        signs.alive()
    while not number:
        time.sleep(1)
    return number


@pytest.mark.process
def test_a_worker_that_hangs_is_ended_and_one_that_gives_signs_is_not(tmp_path: Path) -> None:
    processes = LocalProcesses(2, tmp_path / "handover")

    def is_ended() -> bool:
        processes.end_hanging()
        return lost.done()

    try:
        assert sorted(processes.submit(pause_then, number).result(120) for number in range(4)) == [0, 1, 2, 3]
        first = workers_of(os.getpid())
        processes._silent = 3.0
        lost, kept = processes.submit(hang_then, 0), processes.submit(hang_then, 3)
        with pytest.warns(
            UserWarning, match="of this machine is ended: it gave no sign of life for 3 s, twice TFMB_JOIN"
        ):
            wait_for(is_ended)
        assert kept.done()
        assert kept.result() == 3
        assert isinstance(lost.exception(), WorkerLostError)
        assert "no sign of life for 3 s" in str(lost.exception())
        processes._silent = 300.0
        assert [processes.submit(pause_then, number).result(120) for number in range(3)] == [0, 1, 2]
        wait_for(lambda: len(set(first) & set(workers_of(os.getpid()))) == 1)
    finally:
        processes.close()
    assert workers_of(os.getpid()) == []


@pytest.mark.slow
def test_a_trial_whose_worker_hangs_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    monkeypatch.setenv("TFMB_JOIN_SECONDS", "30")
    expected = tune(workers=1)
    with pytest.warns(UserWarning, match="gave no sign of life for 60 s"):
        found = tune(worker_trials.build_hangs_once, run_dir=tmp_path / "s")
    assert (tmp_path / "mark").exists()
    assert [(t.values, t.fate) for t in found.trials] == [(t.values, t.fate) for t in expected.trials]
    assert_whole(tmp_path / "s", 6)


class Counts(keras.callbacks.Callback):
    """Ends a trial after its second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(epoch)
        if len(self.seen) == 2:
            self.model.stop_training = True


PRUNED: dict[str, Any] = {"pruning": True, "round_size": 2}


@pytest.mark.process
@pytest.mark.parametrize("given", here([PRUNED, {"folds": 2}], [PRUNED]))
def test_callbacks_and_folds_go_to_workers(given: dict[str, Any]) -> None:
    class Local(Counts):  # goes by value
        pass

    about: dict[str, Any] = {"callbacks": [Local()], "epochs": 9, "max_trials": 4, **given}
    found, alone = tune(**about), tune(workers=1, **about)
    for one, other in zip(found.trials, alone.trials, strict=True):
        assert (one.values, one.fate) == (other.values, other.fate)
        assert [e.epochs for e in one.history] == [e.epochs for e in other.history]
        assert one.score == pytest.approx(other.score, rel=1e-5)
    assert max(each.epochs or 0 for trial in found.trials for each in trial.history) == 2
