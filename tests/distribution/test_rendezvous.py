"""Workers meet before TensorFlow starts: in any order, among strangers, and never for longer than they were told."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tfmb.distribution import rendezvous
from tfmb.distribution.launcher import free_ports
from tfmb.distribution.rendezvous import Cluster, join_seconds, meet
from tfmb.errors import ConfigError, PeerLostError

LONG, SHORT = 20.0, 1.0


def clusters(count: int) -> list[Cluster]:
    """The same workers as each of them sees them."""
    names = tuple(f"worker {rank}" for rank in range(count))
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(count))
    return [Cluster(names=names, addresses=addresses, rank=rank) for rank in range(count)]


@pytest.fixture
def start() -> Iterator[Any]:
    """Runs a worker's `meet` in a thread."""
    with ThreadPoolExecutor() as pool:

        def begin(cluster: Cluster, seconds: float) -> "Future[None]":
            return pool.submit(meet, cluster, seconds)

        yield begin


def wait_for_port(cluster: Cluster) -> None:
    while 0 in cluster.unreachable():
        time.sleep(0.01)


@contextlib.contextmanager
def stranger(port: int, says: bytes = b"") -> Iterator[None]:
    """Somebody else on a port, who accepts one caller after the other, says something and hangs up, if at all."""
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve() -> None:
            held = []
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    held.append(connection)
                    if says:
                        connection.sendall(says)
                        held.pop().close()
            for connection in held:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_all_meet_in_any_order(order: tuple[int, ...], start: Any) -> None:
    workers = clusters(3)
    met: list[Any] = []
    for rank in order:
        assert not any(worker.done() for worker in met)
        met.append(start(workers[rank], LONG))
        time.sleep(0.3)
    for worker in met:
        worker.result(timeout=5)


def test_one_worker_waits_for_nobody() -> None:
    meet(clusters(1)[0], SHORT)


def test_ports_are_free_afterwards(start: Any) -> None:
    workers = clusters(2)
    for worker in [start(each, LONG) for each in workers]:
        worker.result(timeout=5)
    for each in workers:
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(each.endpoint(each.rank))


def test_all_who_came_name_the_one_who_did_not(start: Any) -> None:
    workers = clusters(4)
    began = time.monotonic()
    # The first one's time is up before the others': they go when it goes.
    met = [start(workers[0], SHORT), start(workers[1], LONG), start(workers[3], LONG)]
    for worker in met:
        with pytest.raises(PeerLostError) as caught:
            worker.result(timeout=10)
        assert str(caught.value).startswith(f"worker 2 ({workers[0].addresses[2]}) did not join within ")
        assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 5


@pytest.mark.compile
def test_worker_whose_time_is_up_first_names_the_missing_one_too(start: Any) -> None:
    workers = clusters(3)
    first, second = start(workers[0], 4.0), start(workers[1], SHORT)
    for worker, missing in [(second, "worker 2 ("), (first, "worker 1 (")]:
        with pytest.raises(PeerLostError) as caught:
            worker.result(timeout=10)
        assert str(caught.value).startswith(missing)
    assert "worker 2 (" in str(caught.value)


def test_first_worker_is_named_where_it_does_not_come() -> None:
    worker = clusters(2)[1]
    with pytest.raises(PeerLostError, match=rf"\Aworker 0 \({worker.addresses[0]}\) did not join within 1 s"):
        meet(worker, SHORT)


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff\x00\n", b"\n", b"wait 1"])
def test_stranger_on_the_first_workers_port_is_not_taken_for_it(says: bytes) -> None:
    worker = clusters(2)[1]
    began = time.monotonic()
    with stranger(worker.endpoint(0)[1], says), pytest.raises(PeerLostError, match=r"\Aworker [01] \("):
        meet(worker, SHORT)
    assert time.monotonic() - began < 4


def test_callers_who_are_no_workers_of_this_run_do_not_count(start: Any) -> None:
    workers = clusters(2)
    first = start(workers[0], LONG)
    wait_for_port(workers[1])
    other = Cluster(names=workers[1].names, addresses=(workers[1].addresses[0], "127.0.0.1:9"), rank=1)
    for hello in (b"GET / HTTP/1.1\r\n", b"\xff\n", f"{other.token} 1\n".encode(), f"{other.token}\n".encode(),
                  f"{workers[1].token} 0\n".encode(), f"{workers[1].token} 7\n".encode()):  # fmt: skip
        with socket.create_connection(workers[0].endpoint(0)) as caller:
            caller.sendall(hello)
            assert caller.makefile("rb").readline() == b"" or not first.done()
    start(workers[1], LONG).result(timeout=10)
    first.result(timeout=5)


def test_worker_that_came_and_died_is_waited_for_again(start: Any) -> None:
    workers = clusters(3)
    first = start(workers[0], LONG)
    wait_for_port(workers[1])
    with socket.create_connection(workers[0].endpoint(0)) as caller:
        caller.sendall(f"{workers[1].token} 1\n".encode())
        assert caller.makefile().readline() == "wait 2\n"
    second = start(workers[2], LONG)
    time.sleep(1.0)
    assert not first.done()
    assert not second.done()
    for worker in (start(workers[1], LONG), first, second):
        worker.result(timeout=5)


def test_port_in_use_is_named_with_its_worker() -> None:
    worker = clusters(2)[1]
    port = worker.endpoint(1)[1]
    with stranger(port), pytest.raises(PeerLostError) as caught:
        meet(worker, LONG)
    assert str(caught.value).startswith(f"worker 1 cannot listen on port {port} (Address already in use)")


def test_long_wait_is_announced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_NOTICE_SECONDS", 0.0)
    announced = pytest.warns(UserWarning, match=r"\Awaiting for worker 1 \(127.0.0.1:\d+\), for 1 s more")
    with announced as caught, pytest.raises(PeerLostError):
        meet(clusters(2)[0], SHORT)
    assert len(caught) == 1


def test_who_is_unreachable() -> None:
    workers = clusters(3)
    with stranger(workers[0].endpoint(2)[1]):
        assert workers[0].unreachable() == [1]
        assert workers[2].unreachable() == [0, 1]


@pytest.mark.parametrize("address", ["host", "host:", ":1", "host:0", "host:65536", "host:x"])
def test_address_without_a_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="ADDRESS:PORT"):
        Cluster(names=("worker 0",), addresses=(address,), rank=0)


def test_address_of_the_newer_protocol_keeps_its_brackets_out_of_the_way() -> None:
    assert Cluster(names=("worker 0",), addresses=("[::1]:2222",), rank=0).endpoint(0) == ("::1", 2222)


def test_seconds_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TFMB_JOIN_SECONDS", raising=False)
    assert join_seconds() == 300
    monkeypatch.setenv("TFMB_JOIN_SECONDS", "1.5")
    assert join_seconds() == 1.5


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_seconds_that_make_no_sense_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFMB_JOIN_SECONDS", text)
    with pytest.raises(ConfigError, match=f"TFMB_JOIN_SECONDS='{text}'"):
        join_seconds()
