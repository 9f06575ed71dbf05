"""Searches on Dask: which clusters are refused, and a real one of this machine. Whole searches are in tests/slow."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from tfmb.errors import ConfigError
from tfmb.tuning.executors.on_dask import OnDask

distributed = pytest.importorskip("distributed")


class Client:
    """In the place of a `distributed.Client`."""

    def __init__(self, *threads: int) -> None:
        self.scheduler, self.status = SimpleNamespace(address="tcp://h:1"), "running"
        self._threads = {f"tcp://h:{number}": count for number, count in enumerate(threads)}

    def nthreads(self) -> dict[str, int]:
        return self._threads

    def scatter(self, data: Any, **given: Any) -> Any:
        return data

    def close(self) -> None:
        raise AssertionError("it is the user's to end")


def test_as_many_tasks_as_there_are_workers_or_the_user_says() -> None:
    assert OnDask(Client(1, 1, 1), None).workers == 3
    assert OnDask(Client(1, 1, 1), 2).workers == 2
    OnDask(Client(1), None).close()


@pytest.mark.parametrize(
    ("threads", "words"),
    [
        ((), "the Dask cluster at tcp://h:1 has no workers: start some"),
        ((1, 4), "the Dask worker tcp://h:1 has several threads: start it with --nthreads 1"),
    ],
)
def test_clusters_that_cannot_run_trials_are_refused(threads: tuple[int, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        OnDask(Client(*threads), None)


@pytest.mark.parametrize("address", ["nowhere", "tcp://", "dask:"])
def test_what_is_no_address_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(ConfigError, match="no Dask scheduler answers at") as refused:
        OnDask(address, None)
    assert "\n" not in str(refused.value)
    del refused
    gc.collect()  # a client that did not connect closes itself when it is collected: not in the next one's thread


def test_a_cluster_that_is_gone_takes_no_more_tasks() -> None:
    client = Client(1)
    executor = OnDask(client, None)
    executor.put(Data(3))
    assert executor.new(OSError())
    client.status = "closed"
    assert not executor.new(OSError())


def test_a_cluster_whose_workers_do_not_come_back_takes_no_more_tasks() -> None:
    class Empty(Client):
        def scatter(self, data: Any, **given: Any) -> Any:
            if "timeout" in given:
                raise TimeoutError("No valid workers found")
            return data

    executor = OnDask(Empty(1), None)
    executor.put(Data(3))
    assert not executor.new(OSError())


def test_without_dask_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"needs Dask: pip install 'tfmb\[dask\]'"):
        OnDask("127.0.0.1:1", None)


@pytest.fixture
def client() -> Iterator[Any]:
    given = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**given) as cluster, distributed.Client(cluster) as found:
        yield found


@dataclass(frozen=True)
class Data:
    factor: int


@pytest.mark.process
@pytest.mark.filterwarnings("ignore")
def test_calls_run_in_its_workers_with_the_data_also_after_all_of_them_were_lost(client: Any) -> None:
    executor = OnDask(client, None)
    data = executor.put(Data(3))
    found = [executor.submit(lambda given, number: (given.factor * number, os.getpid()), data, n) for n in range(4)]
    assert [future.result(60)[0] for future in found] == [0, 3, 6, 9]
    assert os.getpid() not in {future.result()[1] for future in found}
    assert isinstance(executor.submit(lambda: 1 // 0).exception(60), ZeroDivisionError)
    # Dask tries it on every worker, and each is killed by it.
    lost = executor.submit(lambda given: os.kill(os.getpid(), signal.SIGKILL), data)
    error = lost.exception(120)
    assert error is not None
    assert executor.is_loss(error)
    assert executor.new(error)
    assert executor.submit(lambda given: given.factor, data).result(60) == 3
    executor.close()
    assert client.status == "running"
