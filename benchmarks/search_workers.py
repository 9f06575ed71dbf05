"""What a second worker saves: the same search by one worker on one core, and by two on a core each.

    python -m benchmarks.search_workers --mirror FOLDER [--model mlp] [--trials 20] [--epochs 8] [--rounds 2]

Each search is a `tfmb tune` of its own, and they take turns. Seconds are those of the whole command, its start
included.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.results import publish

LIMIT = 0.65


def search(options: argparse.Namespace, workers: int, cores: set[int]) -> dict[str, Any]:
    """Seconds of the command, and what it found."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "tfmb", "tune", "--dataset", "mnist", "--mirror", str(options.mirror.resolve())),
            *("--model", options.model, "--max-trials", str(options.trials), "--epochs", str(options.epochs)),
            *("--oracle", "random,no_pruning", "--workers", str(workers), "--json", "--run-dir", f"{folder}/search"),
        ]
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)  # which the command inherits
        try:
            started = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds = time.perf_counter() - started
        finally:
            os.sched_setaffinity(0, own)
    return {"seconds": seconds, "score": json.loads(done.stdout)["score"]}


def main() -> None:
    """Measures, prints a table, and leaves JSON and Markdown in `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mirror", type=Path, required=True)
    parser.add_argument("--model", choices=("mlp", "cnn"), default="mlp")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    first, second, *_ = sorted(os.sched_getaffinity(0))
    peers = {"one worker, one core": (1, {first}), "two workers, two cores": (2, {first, second})}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in peers}
    for number in range(options.rounds):
        for name in list(peers) if number % 2 == 0 else list(peers)[::-1]:
            runs[name].append(search(options, *peers[name]))
    medians = {name: statistics.median(run["seconds"] for run in found) for name, found in runs.items()}
    one, two = medians.values()
    lines = ["| search | seconds | best val_loss |", "|---|---|---|"]
    lines += [f"| {name} | {medians[name]:.1f} | {found[0]['score']:.4f} |" for name, found in runs.items()]
    lines += ["", f"{two / one:.2f} of the time (at most {LIMIT}); {options.model}, {options.trials} trials"]
    publish(f"search-workers-{options.model}", {"runs": runs, "ratio": two / one}, lines)


if __name__ == "__main__":
    main()
