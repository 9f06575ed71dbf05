"""Workers of other hosts: how they come to a search, who is turned away, and a search that is shared with one."""

import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fake_trials import Sessions
from search_processes import two_hosts

from tfmb.distribution.launcher import free_ports
from tfmb.errors import ConfigError, PeerLostError
from tfmb.tuning import guest, wire
from tfmb.tuning.door import JOIN, LEAVE, Door, read_token
from tfmb.tuning.handover import to_json
from tfmb.tuning.job import TuneConfig
from tfmb.tuning.journal import Journal
from tfmb.tuning.service import Server
from tfmb.tuning.space import Space

CONFIG = TuneConfig(dataset="digits", model="mlp", space=Space(), listen="127.0.0.1:0")
TOLD = {"config": to_json(CONFIG), "fingerprint": "f", "slices": 9}


class Open:
    """A search of fake trials that listens on a port of this host."""

    def __init__(self, folder: Path) -> None:
        self.sessions, self.journal = Sessions("random", folder, False, 12), Journal(folder / "journal.jsonl")
        self.oracle = self.sessions.oracle(self.journal)
        self.door = Door("127.0.0.1:0", folder, TOLD)
        self.server = Server(self.oracle, door=self.door)
        self.address = f"127.0.0.1:{self.server.port}"

    def call(self, method: str, content: bytes, known: wire.Address) -> Any:
        with replace(known, target=self.address).channel() as channel:
            answer = channel.unary_unary(f"/{wire.SERVICE}/{method}")(content, metadata=known.metadata, timeout=20)
        return json.loads(answer)

    def join(self, token: str, host: str = "other") -> wire.Address:
        known = wire.Address(target=self.address, worker=host, token=token)
        came = self.call(JOIN, json.dumps({"host": host}).encode(), known)
        return wire.Address(target=self.address, worker=came["worker"], token=came["token"])

    def close(self) -> None:
        self.server.close()
        self.door.close()
        self.journal.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    found = Open(tmp_path)
    yield found
    found.close()


def test_the_token_is_for_its_owner_and_gone_with_the_search(opened: Open, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert opened.join(read_token(tmp_path)).worker == "other-1"
    opened.door.close()
    with pytest.raises(ConfigError, match="no search with --listen runs in"):
        read_token(tmp_path)


def test_a_token_that_a_killed_chief_left_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (tmp_path / "token").symlink_to(target)
    door = Door("127.0.0.1:0", tmp_path, TOLD)
    assert door.knows(read_token(tmp_path))
    assert not target.exists()


def test_who_knows_no_token_is_turned_away(opened: Open, tmp_path: Path) -> None:
    assert not opened.door.knows("é")
    for token in ("", "x", read_token(tmp_path)[:-1]):
        with pytest.raises(grpc.RpcError) as refused:
            opened.join(token)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert not opened.door.here


@pytest.mark.parametrize("seed", range(3))
def test_noise_at_the_door_is_refused(seed: int, opened: Open, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    token = read_token(tmp_path)
    known = opened.join(token)
    texts = [b"", b"[]", b"{}", b'{"host": 1e999}', b'{"host": "../x"}', b'{"host": "a\\u0000"}', b"[" * 50_000]
    texts += [b'{"error": 3}', b'{"error": {"kind": 1}}', b'{"host": "' + b"a" * 41 + b'"}', random.bytes(40)]
    texts += [json.dumps({"host": "a" * 100_000}).encode()]
    for text in texts:
        for method, sender in ((JOIN, replace(known, token=token)), (LEAVE, known)):
            with pytest.raises(grpc.RpcError) as refused:
                opened.call(method, text, sender)
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT, text[:40]
    assert opened.server.failure is None
    assert opened.door.here == {"other-1"}


def test_a_guest_says_why_it_goes_and_only_once(opened: Open, tmp_path: Path) -> None:
    known = opened.join(read_token(tmp_path))
    words = json.dumps({"error": {"kind": "KeyError", "message": "my bug"}}).encode()
    opened.call(LEAVE, words, known)
    opened.call(LEAVE, words, known)
    (ended,) = opened.door.left()
    assert (ended.worker, ended.error) == ("other-1", {"kind": "KeyError", "message": "my bug"})
    assert not opened.door.here
    assert not opened.door.left()


def test_a_port_in_use_is_said(opened: Open, tmp_path: Path) -> None:
    door = Door(opened.address, tmp_path, TOLD)
    with pytest.raises(ConfigError, match="cannot be listened on"):
        Server(opened.oracle, door=door)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"model": "cnn"}, "another model"), ({"space": Space(batch_size=[8]), "seed": 1}, "another space, seed")],
)
def test_another_search_is_not_joined(change: dict[str, Any], words: str, opened: Open, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        guest.join_search(opened.address, replace(CONFIG, **change), tmp_path, print)
    (tmp_path / "token").write_text("of another search")
    with pytest.raises(ConfigError, match="is not the one in --run-dir"):
        guest.join_search(opened.address, CONFIG, tmp_path, print)


def test_a_chief_that_does_not_answer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_JOIN_SECONDS", 0.5)
    (tmp_path / "token").write_text("x")
    with pytest.raises(PeerLostError, match="no search answers at"):
        guest.join_search(f"127.0.0.1:{free_ports(1)[0]}", CONFIG, tmp_path, print)


@pytest.mark.process
@pytest.mark.slow
def test_two_hosts_share_a_search(tmp_path: Path) -> None:
    two_hosts(tmp_path, dies=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--join", "h:1"], "give its --run-dir"),
        (["--join", "h:1", "--run-dir", "s", "--listen", "h:2"], "leave --listen"),
        (["--join", "nowhere", "--run-dir", "s"], "--join 'nowhere' is not of the form HOST:PORT"),
        (["--listen", "unix:/tmp/x"], "is not of the form HOST:PORT"),
        (["--join", "127.0.0.1:1", "--run-dir", "s"], "no search with --listen runs in s"),
    ],
)
def test_command_lines_that_make_no_sense(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tfmb.cli import main

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["tune", "--dataset", "digits", *options])
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
