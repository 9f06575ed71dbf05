"""A search with workers: the service that they call, what it refuses, and processes that end in every way."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fake_trials import FakeTrainer, Sessions, table, worker_of

from tfmb.errors import ConfigError, PeerLostError
from tfmb.tuning import leases, wire
from tfmb.tuning.client import RemoteOracle
from tfmb.tuning.journal import Journal
from tfmb.tuning.messages import as_metrics, history_of
from tfmb.tuning.records import Evaluation
from tfmb.tuning.search import TrialLost
from tfmb.tuning.service import Server

METHODS = wire.requests()
REPORT = {"val_loss": 1.0, "tfmb/updates": 1.0, "tfmb/examples": 1.0, "tfmb/seconds": 1.0}
ANSWERS = {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}


class Served:
    """A random search of fake trials behind a real server."""

    def __init__(self, folder: Path, kind: str = "random", pruning: bool = False, most: int = 12) -> None:
        self.sessions = Sessions(kind, folder, pruning, most)
        self.folder, self.journal = folder, Journal(folder / "journal.jsonl")
        self.oracle = self.sessions.oracle(self.journal)
        self.server = Server(self.oracle)
        self._clients: list[RemoteOracle] = []

    def client(
        self,
        worker: str = "worker-0",
        lost: Callable[[], None] = lambda: None,
        kind: type[RemoteOracle] = RemoteOracle,
    ) -> RemoteOracle:
        self._clients.append(kind(self.server.admit(worker), lost))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.server.close()
        self.journal.close()

    def assert_well(self) -> None:
        """The oracle answers, and another thread can lock it."""
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(self.oracle.create_trial("probe")))
        thread.start()
        thread.join(10)
        assert found
        assert self.server.failure is None
        self.oracle.give_back("probe")


class Silent(RemoteOracle):
    """Calls only when it has something to say."""

    def _beat(self) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found = Served(tmp_path)
    yield found
    found.close()


@pytest.mark.compile
@pytest.mark.parametrize(
    ("kind", "pruned"),
    [("random", False), ("random", True), ("grid", False), ("hyperband", False), ("bayesian", True)],
)
def test_workers_together_do_each_trial_once(kind: str, pruned: bool, tmp_path: Path) -> None:
    served = Served(tmp_path, kind, pruned)
    trainers = [FakeTrainer() for _ in range(3)]
    errors: list[BaseException] = []

    def work(number: int) -> None:
        name = f"worker-{number}"
        try:
            worker_of(
                served.client(name), trainers[number], served.sessions.objective, tmp_path / "trials", name
            ).search()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not served.oracle.ongoing_trials
    reports = [event for event in served.journal.events if event["event"] == "report"]
    assert sum(len(trainer.ran) for trainer in trainers) == len(reports)  # no slice was trained twice
    found = table(served.oracle)
    served.close()
    if kind == "random":
        alone = Sessions(kind, tmp_path / "alone", pruned)
        alone.folder.mkdir()
        expected = alone.run()
        assert [row[:2] for row in found] == [row[:2] for row in expected]
        assert pruned or found == expected
    again = Sessions(kind, tmp_path, pruned)
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert table(again.oracle(journal)) == found


def test_numbers_arrive_to_the_bit(served: Served) -> None:
    client = served.client()
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**63, size=200, dtype=np.uint64).view(np.float64)
    values = [float(value) for value in bits if math.isfinite(value)] + [5e-324, -0.0, 1e300, 0.1, 1 / 3, 2.0**53 - 1]
    metrics = {**REPORT, "tfmb/seconds": 1 / 3, **{f"metric_{i}": value for i, value in enumerate(values)}}
    trial = client.create_trial("worker-0")
    own = served.oracle.trials[trial.trial_id]
    own.hyperparameters.values |= {f"value_{i}": value for i, value in enumerate(values)}
    own.hyperparameters.values |= {"text": "shift=2 é ☃", "yes": True, "whole": 2**62}
    client.update_trial(trial.trial_id, metrics, step=1)
    for there in (client.get_trial(trial.trial_id), client.create_trial("worker-0")):
        for name, value in own.hyperparameters.values.items():
            found = there.hyperparameters.values[name]
            assert (type(found), repr(found)) == (type(value), repr(value))
        (look,) = history_of(there)
        expected = {"val_loss": 1.0, **{f"metric_{i}": value for i, value in enumerate(values)}}
        assert {name: repr(value) for name, value in look.metrics.items()} == {
            name: repr(value) for name, value in expected.items()
        }
        assert look.seconds == 1 / 3
    client.end_trial(trial)
    assert client.get_best_trials(1)[0].score == 1.0


def report(number: int, loss: float = 1.0) -> dict[str, float]:
    metrics = {"val_loss": loss}
    return as_metrics(Evaluation(slice=number, updates=number, examples=number, seconds=1.0, metrics=metrics))


def test_a_silent_worker_loses_its_trial_and_its_late_calls_do_not_count(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.1)
    lively = served.client("worker-1")
    silent = served.client("worker-0", kind=Silent)
    lost, kept = silent.create_trial("worker-0"), lively.create_trial("worker-1")
    silent.update_trial(lost.trial_id, report(1), step=1)
    monkeypatch.setattr(leases, "HUNG_SECONDS", 0.8)
    end = time.monotonic() + 1.0
    hung: set[str] = set()
    while time.monotonic() < end:
        hung |= set(served.server.take_back())
        time.sleep(0.02)
    assert hung == {"worker-0"}
    assert served.oracle.ongoing_trials.keys() == {"worker-1"}
    before = served.journal.path.read_bytes()
    for call in (lambda: silent.update_trial(lost.trial_id, report(2), step=2), lambda: silent.end_trial(lost)):
        with pytest.raises(TrialLost, match=f"trial {lost.trial_id} is not worker-0's any more"):
            call()
    assert served.journal.path.read_bytes() == before
    third = served.client("worker-2")
    assert third.create_trial("worker-2").trial_id == lost.trial_id
    with pytest.raises(TrialLost):
        silent.update_trial(lost.trial_id, report(2), step=2)
    third.update_trial(lost.trial_id, report(2, 0.5), step=2)
    third.end_trial(lost)
    assert silent.create_trial("worker-0").trial_id not in (lost.trial_id, kept.trial_id)
    assert [look.metrics["val_loss"] for look in served.oracle.progress[lost.trial_id].history] == [1.0, 0.5]


def test_a_worker_that_never_calls_is_missed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("START_SECONDS", 0.5), ("HUNG_SECONDS", 0.2), ("LEASE_SECONDS", 0.1)):
        monkeypatch.setattr(leases, name, seconds)
    served.server.admit("worker-0")
    begin = time.monotonic()
    while not (hung := served.server.take_back()):
        assert time.monotonic() - begin < 5
        time.sleep(0.01)
    assert hung == ["worker-0"]
    assert time.monotonic() - begin >= 0.5


def test_a_worker_whose_trial_is_anothers_asks_for_the_next(served: Served, tmp_path: Path) -> None:
    class Slow(FakeTrainer):
        def run(self, values: Any, goes_on: Any, state: Path, begun: Any) -> Any:
            if not self.ran:
                served.oracle.give_back("worker-0")  # as if it had been silent
                served.oracle.create_trial("worker-1")
            return super().run(values, goes_on, state, begun)

    trainer = Slow()
    tuner = worker_of(served.client(), trainer, served.sessions.objective, tmp_path / "trials")
    thread = threading.Thread(target=tuner.search, daemon=True)
    thread.start()
    while len(served.oracle.end_order) < 11:
        time.sleep(0.01)
    assert served.oracle.ongoing_trials["worker-1"].trial_id == "00"
    assert thread.is_alive()  # it waits: worker-1 may yet be lost
    served.server.dismiss("worker-1")
    thread.join(20)
    assert not thread.is_alive()
    assert len(set(served.oracle.end_order)) == len(served.oracle.end_order) == 12


def test_weights_are_there_before_the_report_that_ends_a_trial(tmp_path: Path) -> None:
    """A worker that is lost after that report is not asked to train again, so no one else could write them."""
    sessions = Sessions("random", tmp_path, most=1, objective="updates:val_loss<=1e9")
    written: list[Path] = []

    class Lost(FakeTrainer):
        def run(self, values: Any, goes_on: Any, state: Path, begun: Any) -> None:
            super().run(values, goes_on, state, begun)
            raise KeyboardInterrupt

        def save_weights(self, folder: Path) -> None:
            written.append(folder)

    with Journal(tmp_path / "journal.jsonl") as journal:
        oracle = sessions.oracle(journal)
        with pytest.raises(KeyboardInterrupt):
            worker_of(oracle, Lost(most=math.inf), sessions.objective, tmp_path / "trials").search()
        oracle.give_back("worker-0")
        assert oracle.end_order == ["0"]
        assert len(oracle.progress["0"].history) == 1
    assert written == [tmp_path / "trials" / "trial_0" / "weights"]


def test_a_process_that_was_replaced_is_not_heard(served: Served) -> None:
    old = served.client("worker-0")
    old.create_trial("worker-0")
    new = served.client("worker-0")
    with pytest.raises(PeerLostError, match="UNAUTHENTICATED"):
        old.create_trial("worker-0")
    new.create_trial("worker-0")
    served.server.dismiss("worker-0")
    with pytest.raises(PeerLostError, match="does not know this worker"):
        new.create_trial("worker-0")


@pytest.mark.compile
def test_a_worker_notices_that_the_chief_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.1)
    served, noticed = Served(tmp_path), threading.Event()
    client = served.client(lost=noticed.set)
    client.create_trial("worker-0")
    time.sleep(0.8)
    assert not noticed.is_set()
    served.server.close()
    with pytest.raises(PeerLostError, match="lost the chief of the search"):
        client.get_space()
    assert noticed.wait(2)
    served.close()


def test_a_full_disk_is_the_chiefs_failure(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    client = served.client()
    monkeypatch.setattr("os.fsync", _full)
    with pytest.raises(PeerLostError, match="INTERNAL: StorageError"):
        client.create_trial("worker-0")
    monkeypatch.undo()
    assert "free some space" in str(served.server.failure)
    served.server.failure = None
    served.assert_well()


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_report_without_the_objective_is_refused_and_not_noted(served: Served) -> None:
    client = served.client()
    trial = client.create_trial("worker-0")
    before = served.journal.path.read_bytes()
    with pytest.raises(ConfigError, match="there is only loss"):
        client.update_trial(trial.trial_id, {**{k: v for k, v in REPORT.items() if k != "val_loss"}, "loss": 1.0}, 1)
    with pytest.raises(ConfigError, match="the metric 'val_loss' became nan"):
        client.update_trial(trial.trial_id, {**REPORT, "val_loss": float("nan")}, 1)
    assert served.journal.path.read_bytes() == before


class Noise:
    """Messages that are wrong, or nearly right."""

    IDS = ("", "0", "00", "../x", "/etc/passwd", "00/../01", "9" * 5000, "\x00", "worker-0", "worker-1", "é☃", "chief")
    NUMBERS = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1.0, 1e300, 3.4e38)
    STEPS = (0, 1, 2, -1, 10, 2**62, -(2**63))
    NAMES = ("val_loss", "tfmb/updates", "tfmb/examples", "tfmb/seconds", "tfmb/fate", "x" * 300, "")

    def __init__(self, seed: int, space: Any) -> None:
        self.random, self.space = np.random.default_rng(seed), space

    def one(self, values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def message(self, method: str) -> bytes:
        request = METHODS[method][0]
        kind = int(self.random.integers(8))
        if kind == 0:
            return self.random.bytes(int(self.random.integers(1, 200)))
        fields: dict[str, Any] = {}
        if method == "CreateTrial":
            fields = {"tuner_id": self.one(self.IDS)}
        elif method == "GetTrial":
            fields = {"trial_id": self.one(self.IDS)}
        elif method == "GetBestTrials":
            fields = {"num_trials": self.one((*self.STEPS, 1000, 1001))}
        elif method == "UpdateTrial":
            names = self.NAMES if kind < 5 else self.NAMES[:4]
            metrics = {name: self.one(self.NUMBERS if kind < 4 else (1.0, 2.0)) for name in names}
            fields = {"trial_id": self.one(self.IDS[:3]), "metrics": metrics, "step": self.one(self.STEPS)}
            if kind == 1:
                fields["metrics"] = {f"m{i}": 1.0 for i in range(5000)}
        elif method == "EndTrial":
            fields = {"trial": {"trial_id": self.one(self.IDS), "status": int(self.random.integers(7))}}
        found = request(**fields)
        if method == "UpdateSpace":
            self._space(found.hyperparameters, kind)
        content: bytes = found.SerializeToString()
        if kind == 2 and content:  # a few bytes are damaged
            damaged = bytearray(content)
            for _ in range(int(self.random.integers(1, 4))):
                damaged[int(self.random.integers(len(damaged)))] ^= int(self.random.integers(1, 256))
            content = bytes(damaged)
        return content

    def _space(self, message: Any, kind: int) -> None:
        if kind == 3:
            message.CopyFrom(self.space)
            return
        for number in range(20_000 if kind == 4 else 3):
            entry = message.space.float_space.add()
            entry.name, entry.min_value, entry.max_value = f"rate-{number}", self.one(self.NUMBERS), 1.0
        message.values.values["rate"].float_value = self.one(self.NUMBERS)
        message.space.choice_space.add().name = self.one(self.IDS)

    def metadata(self, address: wire.Address) -> list[tuple[str, str]]:
        """Right, but now and then for its token or its exact metrics."""
        entries = list(address.metadata)
        if self.random.integers(10) == 0:
            entries[int(self.random.integers(2))] = self.one((("authorization", "Bearer x"), ("tfmb-worker", "../x")))
        if self.random.integers(4) == 0:
            text = self.one(
                ("{", "[]", "NaN", '{"val_loss": NaN}', '{"val_loss": "x"}', "[" * 5000, json.dumps(REPORT))
            )
            entries.append((wire.METRICS, text))
        return entries


@pytest.mark.parametrize("method", METHODS)
def test_noise_is_refused_and_the_chief_lives(method: str, served: Served) -> None:
    client, address = served.client("worker-0"), served.server.admit("worker-1")
    client.create_trial("worker-0")
    noise, answers = Noise(list(METHODS).index(method), served.server._space.hyperparameters), []
    with address.channel() as channel:
        call = channel.unary_unary(f"/{wire.SERVICE}/{method}")
        for number in range(250):
            if number % 50 == 0:
                served.oracle.create_trial("worker-1")
            content = noise.message(method) if number else bytes(wire.MOST_BYTES + 1)
            try:
                METHODS[method][1].FromString(call(content, metadata=noise.metadata(address), timeout=20))
                answers.append("OK")
            except grpc.RpcError as error:
                answers.append(error.code().name)
            assert served.server.failure is None, served.server.failure
    assert set(answers) <= ANSWERS, set(answers)
    assert {"INVALID_ARGUMENT", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"} <= set(answers) | (
        {"INVALID_ARGUMENT"} if method == "GetSpace" else set()
    )
    served.assert_well()
    for progress in served.oracle.progress.values():
        assert all(math.isfinite(value) for look in progress.history for value in look.metrics.values())
    again = Sessions("random", served.folder)
    with Journal(served.folder / "journal.jsonl") as journal:
        again.oracle(journal)  # nothing in the journal is nonsense
