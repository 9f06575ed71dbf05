"""What a checkpoint holds is the state of the moment when it was saved, whatever training does meanwhile."""

import threading
from pathlib import Path
from typing import Any

import pytest
import tiny_run

from tfmb.errors import DataError
from tfmb.storage import atomic
from tfmb.training.checkpoint import checkpointer


def test_state_that_changes_while_it_is_written_is_saved_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that a log goes on filling made the manifest's own SHA-256 wrong on a slow disk."""
    run, theirs, changed = tiny_run.TinyRun(tmp_path), checkpointer.commit_folder, threading.Event()

    def commit_when_changed(*arguments: Any) -> None:
        assert changed.wait(30)
        theirs(*arguments)

    monkeypatch.setattr(checkpointer, "commit_folder", commit_when_changed)
    run.set(1)
    losses = run.counter.value["losses"] = [0.5]
    run.keeper.save(tiny_run.position(1))
    losses.append(0.25)
    changed.set()
    run.keeper.flush()
    run.keeper.close()
    found = tiny_run.TinyRun(tmp_path)
    assert found.keeper.restore() == tiny_run.position(1)
    assert found.counter.value == {"drawn": 1, "losses": [0.5]}


@pytest.mark.parametrize("name", ["step-7", "step-of-my-notes0", "step-" + 12 * "\u0667", "00000000000000007"])
def test_a_folder_of_another_name_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    """A user's own folder, or what another program left, is neither read nor moved."""
    run = tiny_run.TinyRun(tmp_path)
    run.set(1)
    run.keeper.save(tiny_run.position(1))
    run.keeper.close()
    theirs = next(path for path in tmp_path.rglob("step-*") if path.is_dir()).parent / name
    theirs.mkdir()
    (theirs / "mine.txt").write_text("mine")
    found = tiny_run.TinyRun(tmp_path)
    assert found.keeper.restore() == tiny_run.position(1)
    found.keeper.close()
    assert (theirs / "mine.txt").read_text() == "mine"


def saved(tmp_path: Path) -> Path:
    """The newest of two checkpoints of a run."""
    run = tiny_run.TinyRun(tmp_path)
    for number in (1, 2):
        run.set(number)
        run.keeper.save(tiny_run.position(number))
    run.keeper.close()
    return sorted((tmp_path / "checkpoints").glob("step-*"))[-1]


def test_what_our_own_reader_misreads_is_never_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checksums are right, so the fault is ours: it cost whole trainings in float16."""
    newest = saved(tmp_path)
    monkeypatch.setattr(checkpointer, "digest_of", lambda tensors: "another")
    with pytest.raises(DataError, match="nothing was changed; go on with the versions that wrote it"):
        tiny_run.TinyRun(tmp_path).keeper.restore()
    monkeypatch.undo()
    assert newest.is_dir()
    assert not list(newest.parent.glob("damaged-*"))
    assert tiny_run.TinyRun(tmp_path).keeper.restore() == tiny_run.position(2)


def test_a_checkpoint_of_another_format_is_never_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "FORMAT", 2)
    newest = saved(tmp_path)
    monkeypatch.undo()
    with pytest.raises(DataError, match="it is of another version of tfmb; go on with that one"):
        tiny_run.TinyRun(tmp_path).keeper.restore()
    assert newest.is_dir()


def test_a_checkpoint_whose_checksum_is_wrong_is_set_aside(tmp_path: Path) -> None:
    newest = saved(tmp_path)
    content = bytearray((newest / "state.data-00000-of-00001").read_bytes())
    content[0] ^= 1
    (newest / "state.data-00000-of-00001").write_bytes(bytes(content))
    with pytest.warns(UserWarning, match="it is set aside as damaged-"):
        assert tiny_run.TinyRun(tmp_path).keeper.restore() == tiny_run.position(1)
