"""Searches on Ray: what is refused, and real actors of this machine. Whole searches are in tests/slow."""

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tfmb.distribution.launcher import free_ports
from tfmb.errors import ConfigError
from tfmb.tuning.executors.on_ray import OnRay

ray = pytest.importorskip("ray")


def test_a_cluster_that_was_not_started_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Ray is not started: call ray.init\(\) first"):
        OnRay(None, 2)


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray: pip install 'tfmb\[ray\]'"):
        OnRay("auto", None)


@pytest.mark.parametrize("error", [ConnectionError("nobody\nthere"), ValueError("no address"), RuntimeError("busy")])
def test_a_cluster_that_does_not_answer_is_refused_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**given: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(ConfigError, match=r"^no Ray cluster answers at 'auto' \(") as refused:
        OnRay("auto", None)
    assert "\n" not in str(refused.value)


def test_a_port_where_nobody_listens_is_told_at_once() -> None:
    (port,) = free_ports(1)
    with pytest.raises(ConfigError, match=rf"^no Ray cluster answers at '127\.0\.0\.1:{port}' \(Connection refused\)"):
        OnRay(f"127.0.0.1:{port}", None)


@pytest.fixture
def started() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.process
@pytest.mark.usefixtures("started")
@pytest.mark.filterwarnings("ignore")
def test_calls_run_in_its_actors_with_the_data_and_another_takes_the_place_of_one_that_is_lost() -> None:
    executor = OnRay(None, None)
    assert executor.workers == 2
    data = executor.put({"factor": 3})
    found = [executor.submit(lambda given, number: (given["factor"] * number, os.getpid()), data, n) for n in range(2)]
    assert [future.result(60)[0] for future in found] == [0, 3]
    assert len({future.result()[1] for future in found} - {os.getpid()}) == 2
    assert isinstance(executor.submit(lambda: 1 // 0).exception(60), ZeroDivisionError)
    lost = executor.submit(lambda: os.kill(os.getpid(), signal.SIGKILL))
    error = lost.exception(120)
    assert error is not None
    assert executor.is_loss(error)
    assert executor.new(error)
    for _ in range(2):
        again = [executor.submit(lambda given: given["factor"], data) for _ in range(2)]
        assert [future.result(60) for future in again] == [3] * 2
    executor.close()
    assert ray.is_initialized()
