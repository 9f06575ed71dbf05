"""What we wrote about a run, a search or a measurement, damaged: kinds for `fuzz_files`."""

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forged
import numpy as np
from damaged import damage

from tfmb.backend import tf
from tfmb.choices import JitScope
from tfmb.cli import threads
from tfmb.jobs.config import TrainConfig
from tfmb.jobs.restore import RestoredRun
from tfmb.jobs.resume import resumed
from tfmb.runs import run_record
from tfmb.serving import export_run
from tfmb.serving.classifier import read_image
from tfmb.training.execution.jit_trial import ExecutionPlan
from tfmb.training.execution.jit_trial import _known as known_execution
from tfmb.tuning.oracles.journal import Journal
from tfmb.tuning.trials.states import keep, kept, numbered, take_state

__all__ = ["KINDS"]

_CONFIG = TrainConfig(dataset="digits", model="mlp")
_RECORD: dict[str, Any] = {
    "status": "finished",
    "made_by": "tfmb train",
    "config": TrainConfig().to_dict(),
    "identity": {"a": 1},
    "data": {"name": "digits", "fingerprint": "a", "test_fingerprint": "b", "train_examples": 9, "num_classes": 3},
    "model": {"name": "mlp", "input_shape": [2, 2, 1], "num_classes": 3, "normalization": {"mean": 3.0, "std": 2.5}},
    "optimizer": {"class": "Adam", "learning_rate": 0.1},
    "result": {"test_loss": 0.5, "test_accuracy": 0.75, "updates": 3},
    "weights_sha256": "0" * 64,
}


def _change_json(path: Path, draw: random.Random) -> None:
    """Damages a file of JSON: its bytes, or what it says."""
    if draw.random() < 0.5:
        value = json.loads(path.read_text())
        forged.change(value, draw)
        path.write_text(forged.dumps(value))
    else:
        damage(path, draw)


def _make_record(folder: Path) -> None:
    run_record.write_run(folder, _RECORD)


def _look_at_record(folder: Path, draw: random.Random) -> str:
    path = folder / "run.json"
    match draw.randrange(8):
        case 0:  # the user's own
            text = json.loads(path.read_text())
            path.write_text(json.dumps({**text, "notes": draw.choice(["x", 1, [1, {"a": None}], {}])}))
        case 1:  # written anew by somebody's program
            path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, indent=draw.choice([None, 1, 8])))
        case 2:  # forged, with a checksum that is right
            text = {key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"}
            forged.change(text, draw)
            path.write_text(json.dumps(run_record.seal(text)) if "config" in text else "{}")
            resumed(folder, {})
            return "equal"
        case _:
            _change_json(path, draw)
    assert resumed(folder, {})[1] == {**_RECORD["result"], "run_dir": str(folder), "weights_sha256": "0" * 64}
    found = run_record.read_run(folder)
    found.pop("notes", None)
    assert found == _RECORD
    return "equal"


_EVENTS: list[dict[str, Any]] = [{"event": "begin", "seed": 1}, {"event": "ended", "trial": "0", "loss": 0.5}]


def _make_journal(folder: Path) -> None:
    with Journal(folder / "journal.jsonl") as journal:
        for event in _EVENTS:
            journal.write(event["event"], **{key: value for key, value in event.items() if key != "event"})


def _look_at_journal(folder: Path, draw: random.Random) -> str:
    path = folder / "journal.jsonl"
    damage(path, draw)
    before = path.read_bytes() if path.is_file() else b""  # also where a link leads
    with Journal(path) as journal:
        # No checksum: what is read is what the whole lines say.
        said = [json.loads(line) for line in before.rpartition(b"\n")[0].split(b"\n") if line]
        assert journal.events == said
    return "equal"


_LINES = [{"update": 1, "running_loss": 0.5}, {"epoch": 1, "loss": 0.25, "accuracy": 0.5}]


def _make_log(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in _LINES))


def _look_at_log(folder: Path, draw: random.Random) -> str:
    path = folder / "metrics.jsonl"
    damage(path, draw)
    run = RestoredRun(run_dir=folder, record={}, config=None, model=None)
    found = export_run.provenance_of_run(run)
    assert json.dumps(found, allow_nan=False)
    return "equal"


def _make_answer(folder: Path) -> None:
    (folder / "threads").write_text(json.dumps({str(n): 0.5 / n for n in {*threads.counts(), threads.cores()}}))
    (folder / "execution").write_text(json.dumps({"compiled": "update", "seconds": {"nothing": 0.5, "update": 0.25}}))


def _look_at_answer(folder: Path, draw: random.Random) -> str:
    import tfmb.storage.cache
    from tfmb.storage.files import read_json

    kind = draw.choice(["threads", "execution"])
    path = folder / kind
    _change_json(path, draw)

    def recall(kind: str, fingerprint: dict[str, Any]) -> Any:
        try:
            return read_json(path, tfmb.storage.cache._MOST_ANSWER_BYTES)
        except (OSError, ValueError):
            return None

    if kind == "threads":
        theirs, tfmb.storage.cache.recall = tfmb.storage.cache.recall, recall
        try:
            found = threads.known_threads(dataclasses.replace(_CONFIG))
        finally:
            tfmb.storage.cache.recall = theirs
        assert found is None or (set(found) <= {*threads.counts(), threads.cores()} and min(found.values()) > 0)
    else:
        import tfmb.training.execution.jit_trial as module

        theirs, module.recall = module.recall, recall
        try:
            execution: ExecutionPlan | None = known_execution({})
        finally:
            module.recall = theirs
        assert execution is None or execution.compiled in JitScope
        found = None if execution is None else {}
    return "refused" if found is None else "equal"


_VALUES: list[Any] = [np.arange(6, dtype="float32").reshape(2, 3), np.int64(4)]


def _variables() -> list[Any]:
    return [tf.Variable(value) for value in _VALUES]


def _make_state(folder: Path) -> None:
    keep(folder / "state.npz", take_state(_variables(), 1, 0.5))
    keep(folder / "weights.npz", numbered(_VALUES))


def _look_at_state(folder: Path, draw: random.Random) -> str:
    path = folder / draw.choice(["state.npz", "weights.npz"])
    damage(path, draw)
    found = [*kept(path).values()]
    expected = [np.array(1), np.array(0.5), *_VALUES] if path.name == "state.npz" else _VALUES
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    return "equal"


def _make_image(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 1), dtype=np.uint8)
    (folder / "a.png").write_bytes(tf.io.encode_png(pixels).numpy())
    (folder / "a.jpg").write_bytes(tf.io.encode_jpeg(pixels).numpy())


def _look_at_image(folder: Path, draw: random.Random) -> str:
    """Pixels may be damaged without a word: a picture is the user's, and has no checksum of ours."""
    path = folder / draw.choice(["a.png", "a.jpg"])
    damage(path, draw)
    assert read_image(str(path), (9, 9, 1)).shape == (9, 9, 1)
    return "equal"


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path, random.Random], str]]] = {
    "record": (_make_record, _look_at_record),
    "journal": (_make_journal, _look_at_journal),
    "log": (_make_log, _look_at_log),
    "answer": (_make_answer, _look_at_answer),
    "state": (_make_state, _look_at_state),
    "image": (_make_image, _look_at_image),
}
