"""Events are on the disk before anyone hears of them; a torn last line is nobody's; damage is told."""

import os
from pathlib import Path

import pytest

from tfmb.errors import DataError, StorageError
from tfmb.tuning.oracles.journal import Journal


def names(path: Path) -> list[str]:
    with Journal(path) as journal:
        return [event["event"] for event in journal.events]


def test_events_come_back_in_order(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.write("a", number=1)
        journal.write("b", text="ü\n")
    with Journal(tmp_path / "j") as again:
        assert again.events == [{"event": "a", "number": 1}, {"event": "b", "text": "ü\n"}]
        again.write("c")
    assert len((tmp_path / "j").read_bytes().splitlines()) == 3


def test_an_event_is_synced_before_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = [], os.fsync
    with Journal(tmp_path / "j") as journal:

        def spy(number: int) -> None:
            synced.append((tmp_path / "j").stat().st_size)
            fsync(number)

        monkeypatch.setattr(os, "fsync", spy)
        journal.write("a")
        assert synced == [(tmp_path / "j").stat().st_size]
    assert synced[0] > 0


@pytest.mark.parametrize("cut", range(1, 15))
def test_a_line_that_was_cut_off_is_left_out(cut: int, tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.write("a")
        journal.write("b")
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole[:-cut])
    with Journal(tmp_path / "j") as again:
        assert [event["event"] for event in again.events] == ["a"]
        again.write("b")
    assert (tmp_path / "j").read_bytes() == whole


def test_a_full_disk_leaves_nothing_of_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with Journal(tmp_path / "j") as journal:
        journal.write("a")
        before = (tmp_path / "j").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StorageError, match=r"j cannot be written \(No space left on device\)"):
                journal.write("b", text="x" * 100)
        assert (tmp_path / "j").read_bytes() == before
        assert len(journal.events) == 1
        journal.write("b")
    assert names(tmp_path / "j") == ["a", "b"]


@pytest.mark.parametrize("line", ["x", "[]", "{}", '{"event": 1}', "[" * 100_000])
def test_damage_is_told_with_its_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "j").write_text(f'{{"event": "a"}}\n{line}\n')
    with pytest.raises(DataError, match="line 2 is damaged"):
        Journal(tmp_path / "j")


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        Journal(tmp_path)


def test_a_pipe_is_no_journal(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal.jsonl")
    with pytest.raises(StorageError, match="it is no plain file"):
        Journal(tmp_path / "journal.jsonl")
