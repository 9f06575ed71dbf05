"""Commands that are killed at random instants, and run again: nothing torn, nothing left behind. Minutes long."""

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fork_server import ForkServer

from tfmb.serving.provenance import check_export

KILLS = {"tune": 50, "export": 30, "advise": 20}
TUNE = ["tune", "--dataset", "digits", "--model", "mlp", "--oracle", "random", "--max-trials", "3", "--epochs", "2"]
TUNE += ["--oracle", "random,no_pruning", "--json", "--run-dir", "s"]
ADVISE = ["advise", "--dataset", "digits", "--model", "mlp", "--target", "loss<=0.5", "--json"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with ForkServer(tmp_path_factory.mktemp("server")) as server:
        yield server


def run(server: ForkServer, arguments: list[str], folder: Path, seconds: float = 300) -> Any:
    """Runs a command in a folder, whose cache is its own, and kills it after so many seconds."""
    environment = {"TFMB_CACHE": str(folder / "cache")}
    return server.call("commands:run", arguments, str(folder), environment, seconds=seconds)


def run_whole(server: ForkServer, arguments: list[str], folder: Path) -> float:
    """Runs a command to its end; returns the seconds that it takes here, within which others of it are killed."""
    begun = time.monotonic()
    done = run(server, arguments, folder)
    assert done.code == 0, done.error
    return time.monotonic() - begun


def leftovers(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".tmp-*"))


def trials(folder: Path) -> list[Any]:
    """What every trial came to, but for its times."""
    events = [json.loads(line) for line in (folder / "s" / "journal.jsonl").read_text().splitlines()]
    began = {event["trial"]: event["values"] for event in events if event["event"] == "began"}
    told = [event for event in events if event["event"] == "report"]
    reports = {
        (event["trial"], event["slice"]): {k: v for k, v in event["metrics"].items() if k != "tfmb/seconds"}
        for event in told
    }
    ended = Counter(event["trial"] for event in events if event["event"] == "ended")
    assert set(ended.values()) == {1}
    return [began, sorted(reports.items())]


def test_searches(server: ForkServer, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    took = run_whole(server, TUNE, whole)
    expected, kills, number = trials(whole), 0, 0
    while kills < KILLS["tune"]:
        folder, draw = tmp_path / str(number), random.Random(number)
        folder.mkdir()
        number += 1
        for _ in range(4):
            ended = run(server, TUNE, folder, draw.uniform(0, took))
            if not ended.hung:
                break
            kills += 1
        else:
            ended = run(server, TUNE, folder)
        assert ended.code == 0, (number, ended.error)
        assert trials(folder) == expected, number
        assert leftovers(folder / "s") == []
        shutil.rmtree(folder)
    print(f"\n{kills} kills of {number} searches")


def test_exports_beside_predictions(server: ForkServer, tmp_path: Path) -> None:
    train = ["train", "--dataset", "digits", "--model", "mlp", "--epochs", "1", "--run-dir", "run"]
    run_whole(server, train, tmp_path)
    export, draw, kills = ["export", "run", "--output", "m"], random.Random(0), 0
    took = run_whole(server, export, tmp_path)
    while kills < KILLS["export"]:
        kills += run(server, export, tmp_path, draw.uniform(0, 1.2 * took)).hung
        for version in (tmp_path / "m").glob("[0-9]*"):
            check_export(version)  # what has its number is whole, whenever its maker was killed
        run_whole(server, ["predict", "--run", "m", "--json", str(picture(tmp_path))], tmp_path)
    run_whole(server, export, tmp_path)
    assert leftovers(tmp_path / "m") == []
    numbers = sorted(int(path.name) for path in (tmp_path / "m").iterdir())
    assert numbers == list(range(1, len(numbers) + 1))
    print(f"\n{kills} kills, {len(numbers)} versions")


def picture(folder: Path) -> Path:
    """A grey image."""
    path = folder / "a.pgm.png"
    if not path.exists():
        from tfmb.backend import tf

        path.write_bytes(tf.io.encode_png(tf.zeros([28, 28, 1], tf.uint8)).numpy())
    return path


def test_advice(server: ForkServer, tmp_path: Path) -> None:
    draw, kills = random.Random(0), 0
    whole = tmp_path / "whole"
    whole.mkdir()
    took = run_whole(server, ADVISE, whole)
    while kills < KILLS["advise"]:
        kills += run(server, ADVISE, tmp_path, draw.uniform(0, took)).hung
    done = run(server, ADVISE, tmp_path)
    assert done.code == 0, done.error
    assert "batch_size" in json.loads(done.text)
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "whole"}
    print(f"\n{kills} kills")
