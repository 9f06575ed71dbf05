"""Kills training runs at random instants, lets them go on, and compares their end with that of runs never stopped.

    python -m benchmarks.kill [--kills 200] [--seed 0]

Runs of one and of two replicas take turns. Each is killed by SIGKILL again and again, while it starts, trains, saves,
scores and ends, until it comes to its end; then weights, slots, seed states and the metrics log must be those of the
run that was never stopped, bit for bit. Ends with 1 where they are not, or where too few kills hit.

A fork server: this process imports TensorFlow and runs nothing with it; each attempt is a fork of it.
"""

import argparse
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

EXAMPLES, BATCH_SIZE, EPOCHS = 500, 16, 3
KILLS_A_RUN, CHECKPOINT_EVERY = 5, 3
MARKS, RESULT = "marks", "result.json"


@dataclass
class Count:
    """What the harness saw.

    Attributes:
        kills: processes that were killed before they ended.
        late: kills that came after the end.
        in_save: kills while a checkpoint was being written.
        in_start: kills before the first batch was done.
        runs: runs that came to their end.
        wrong: of these, those that ended otherwise than the run never stopped.
    """

    kills: int = 0
    late: int = 0
    in_save: int = 0
    in_start: int = 0
    runs: int = 0
    wrong: int = 0


def train(run_dir: Path, replicas: int) -> None:
    """One process's part of a run: begins it or goes on with it, and writes what it came to."""
    import tfmb
    from tfmb.backend import keras
    from tfmb.training.checkpoint import checkpointer

    marks = (run_dir.parent / f"{run_dir.name}.{MARKS}").open("a", buffering=1)
    commit = checkpointer.commit_folder

    def marked(*arguments: Any) -> None:
        marks.write("SAVING\n")
        commit(*arguments)
        marks.write("SAVED\n")

    visit = checkpointer.Checkpointer.visit

    def marked_visit(keeper: Any, position: Any) -> None:
        marks.write("AT\n")
        visit(keeper, position)

    mock.patch.object(checkpointer, "commit_folder", marked).start()
    mock.patch.object(checkpointer.Checkpointer, "visit", marked_visit).start()
    tfmb.configure_replicas(2)
    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(EXAMPLES, 12)).astype("float32")
    y = (x.sum(1) > 0).astype("int64")

    def build() -> Any:
        keras.utils.set_random_seed(1)
        layers = keras.layers
        hidden = [layers.Dense(32, "relu"), layers.BatchNormalization(), tfmb.layers.Dropout(0.2)]
        return keras.Sequential([keras.Input((12,)), *hidden, layers.Dropout(0.1), layers.Dense(2)])

    optimizer = tfmb.optimizers.Adam(0.01) if replicas == 1 else tfmb.optimizers.SGD(0.05, momentum=0.9)
    history = tfmb.fit(
        build, x, y, BATCH_SIZE, EPOCHS, verbose=0, optimizer=optimizer, seed=3, devices=replicas, run_dir=run_dir,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), validation_data=(x[:40], y[:40]),
        metrics=["accuracy"], resume=True, checkpoint_every=CHECKPOINT_EVERY,
    )  # fmt: skip
    found = {
        "variables": _hash(copy for v in history.model.variables for copy in getattr(v.value, "values", [v.value])),
        # A run that was killed after its end is not built again: its weights and logs are what it came to.
        "slots": _hash(optimizer.variables) if optimizer.variables else None,
        "log": hashlib.sha256((run_dir / "metrics.jsonl").read_bytes()).hexdigest(),
        "history": history.history,
    }
    temporary = run_dir.parent / f"{run_dir.name}.tmp"
    temporary.write_text(json.dumps(found))
    temporary.replace(run_dir.parent / f"{run_dir.name}.{RESULT}")


def _hash(variables: Any) -> str:
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def fork(work: Callable[[], None], log: Path) -> int:
    """The process number of a fork that does the work; what it says on its error output goes to a file."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 2)
        work()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def finished(folder: Path, replicas: int, name: str) -> tuple[dict[str, Any], float, float]:
    """A run that is never stopped: (what it came to, seconds before the first batch, seconds after it)."""
    run_dir = folder / name
    started = time.monotonic()
    child = fork(lambda: train(run_dir, replicas), folder / f"{name}.log")
    marks, began = folder / f"{name}.{MARKS}", None
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if began is None and _trains(marks):
            began = time.monotonic()
        time.sleep(0.005)
    result = folder / f"{name}.{RESULT}"
    if not result.exists() or began is None:
        raise SystemExit(f"the run never stopped failed:\n{(folder / f'{name}.log').read_text()[-2000:]}")
    return json.loads(result.read_text()), began - started, time.monotonic() - began


def killed(folder: Path, replicas: int, name: str, times: tuple[float, float], count: Count, most: int) -> Any:
    """A run that is killed until it ends, or until there were `most` kills; what it came to, or None."""
    run_dir, marks, result = (folder / part for part in (name, f"{name}.{MARKS}", f"{name}.{RESULT}"))
    while count.kills < most and (left := _visits_left(run_dir)) > 3:
        marks.write_text("")
        child = fork(lambda: train(run_dir, replicas), folder / f"{name}.log")
        if random.random() < 0.2:
            time.sleep(random.uniform(0.0, times[0]))
        else:
            # Some instant after one of the visits that are left, scoring and saving included.
            visits = random.randint(2, left - 1)
            while _visits(marks) < visits and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                time.sleep(0.001)
            time.sleep(random.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            written = marks.read_text().split()
            count.kills += 1
            count.in_save += written.count("SAVING") > written.count("SAVED")
            count.in_start += not _trains(marks)
            continue
        if os.WEXITSTATUS(status):
            raise SystemExit(f"a run failed:\n{(folder / f'{name}.log').read_text()[-2000:]}")
        count.late += 1
        return json.loads(result.read_text())
    # Enough kills, or little left to do: it goes to its end.
    child = fork(lambda: train(run_dir, replicas), folder / f"{name}.log")
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"a run failed:\n{(folder / f'{name}.log').read_text()[-2000:]}")
    return json.loads(result.read_text())


def _visits_left(run_dir: Path) -> int:
    """About how often the loop will still come by where it saves."""
    steps = [int(path.name[5:]) for path in run_dir.glob("checkpoints/step-*")]
    return (EPOCHS * -(-EXAMPLES // BATCH_SIZE) - max(steps, default=0)) // CHECKPOINT_EVERY


def _visits(marks: Path) -> int:
    """How often it came by."""
    return marks.read_text().count("AT") if marks.exists() else 0


def _trains(marks: Path) -> bool:
    """Whether the first call of the training function, which traces it, has returned."""
    return _visits(marks) >= 2


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether two runs came to the same bits."""
    keys = [key for key in expected if found[key] is not None]
    return all(found[key] == expected[key] for key in keys)


def run(kills: int, seed: int, folder: Path) -> Count:
    """Kills as many processes as asked for."""
    random.seed(seed)
    expected, times = {}, {}
    for replicas in (1, 2):
        expected[replicas], *about = finished(folder, replicas, f"whole-{replicas}")
        times[replicas] = (about[0], about[1])
    count = Count()
    while count.kills < kills:
        replicas = 1 + count.runs % 2
        name = f"killed-{count.runs}"
        found = killed(folder, replicas, name, times[replicas], count, min(kills, count.kills + KILLS_A_RUN))
        count.runs += 1
        leftovers = list((folder / name / "checkpoints").glob(".tmp-*"))
        if not same(found, expected[replicas]) or leftovers:
            count.wrong += 1
            print(f"{name}: {found} and not {expected[replicas]}; left over: {leftovers}", file=sys.stderr)
        else:
            shutil.rmtree(folder / name)
    return count


def main() -> None:
    """Prints what the harness saw; ends with 1 where a run ended otherwise, or where too few kills hit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    importlib.import_module("tfmb.training.fit")  # so that no fork has to

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        count = run(options.kills, options.seed, Path(folder))
    print(
        f"{count.kills} kills in {count.runs} runs ({count.in_start} before the first batch was done, "
        f"{count.in_save} inside a save, {count.late} came late): {count.runs - count.wrong} ended bit-identical, "
        f"{count.wrong} did not; "
        f"{time.monotonic() - started:.0f} s, seed {options.seed}"
    )
    hit = count.kills / max(count.kills + count.late, 1)
    sys.exit(0 if not count.wrong and hit >= 0.9 and count.in_save else 1)


if __name__ == "__main__":
    main()
