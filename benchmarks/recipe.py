"""Time to 99 % on MNIST: `tfmb train --recipe fast` beside a plain PyTorch loop of the same CNN (Adam 0.001, batch 64).

    python -m benchmarks.recipe --mirror FOLDER [--seeds 10] [--torch-seeds 7]

All seeds are reported. Ours train to the end and are scored once. PyTorch's are scored after every quarter of an
epoch, which does not count, until the first score of 99 %. Importing, tracing and the first update are apart.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.pairs import speedup
from benchmarks.results import publish

TARGET, BATCH_SIZE, LOOKS_AN_EPOCH, MOST_EPOCHS = 0.99, 64, 4, 6


def ours(mirror: str, seed: int) -> dict[str, Any]:
    """The result of one training."""
    command = [
        sys.executable,
        "-m",
        "tfmb",
        "train",
        "--recipe",
        "fast",
        "--mirror",
        mirror,
        "--seed",
        str(seed),
        "--json",
    ]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "--run-dir", f"{folder}/run"], check=True, capture_output=True, text=True, timeout=600
        )
    found: dict[str, Any] = json.loads(done.stdout)
    first = found["tracing_seconds"]
    return {**found, "first_call_seconds": first, "training_seconds": first + found["training_seconds"]}


def theirs(mirror: str, seed: int) -> dict[str, Any]:
    """The same of PyTorch's loop, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.recipe", "--mirror", mirror, "--one-torch-seed", str(seed)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1200)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def torch_run(mirror: str, seed: int) -> dict[str, Any]:
    """Trains until the test accuracy is 99 %."""
    import torch
    from torch.nn import functional

    import tfmb
    from benchmarks.peers.torch_loop import build

    splits = tfmb.data.load("mnist", mirror=mirror)
    assert splits.test is not None

    def to_torch(source: Any) -> Any:
        pixels = torch.from_numpy(source.examples).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        return pixels, torch.from_numpy(source.labels.astype("int64"))

    (x, y), (x_test, y_test) = to_torch(splits.train), to_torch(splits.test)
    torch.manual_seed(seed)
    model = build("cnn").to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    trained, accuracy, updates, first = 0.0, 0.0, 0, 0.0
    for _ in range(MOST_EPOCHS):
        batches = torch.randperm(len(x)).split(BATCH_SIZE)
        quarter = -(-len(batches) // LOOKS_AN_EPOCH)
        for start in range(0, len(batches), quarter):
            model.train()
            for rows in batches[start : start + quarter]:
                started = time.perf_counter()
                optimizer.zero_grad(set_to_none=True)
                functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
                trained += time.perf_counter() - started
                updates += 1
                first = first or trained
            model.eval()
            with torch.no_grad():
                hits = [
                    (model(a).argmax(1) == b).sum() for a, b in zip(x_test.split(1000), y_test.split(1000), strict=True)
                ]
            accuracy = float(sum(hits)) / len(y_test)
            if accuracy >= TARGET:
                break
        if accuracy >= TARGET:
            break
    return {
        "training_seconds": trained, "first_call_seconds": first, "test_accuracy": accuracy, "updates": updates,
        "epochs": updates * BATCH_SIZE / len(x),
    }  # fmt: skip


def main() -> None:
    """Measures, prints a table, and leaves JSON and Markdown in `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mirror", required=True, help="a folder with the official MNIST files")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--torch-seeds", type=int, default=7)
    parser.add_argument("--one-torch-seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_torch_seed is not None:
        print(json.dumps(torch_run(options.mirror, options.one_torch_seed)))
        return
    runs: list[dict[str, Any]] = []
    torch_runs: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        runs.append(ours(options.mirror, seed))
        if seed < options.torch_seeds:
            torch_runs.append(theirs(options.mirror, seed))
    lines = [
        "| run | seed | test accuracy | training, s | of which the first call | updates |",
        "|---|---|---|---|---|---|",
    ]
    for name, ended in (("tfmb --recipe fast", runs), ("PyTorch, to its first 99 %", torch_runs)):
        lines += [
            f"| {name} | {seed} | {run['test_accuracy']:.4f} | {run['training_seconds']:.2f} | "
            f"{run['first_call_seconds']:.2f} | {run['updates']:,} |"
            for seed, run in enumerate(ended)
        ]
    mean = statistics.mean(run["test_accuracy"] for run in runs)
    seconds = [statistics.median(_warm(run) for run in ended) for ended in (runs, torch_runs)]
    pairs = {"tfmb": [_warm(run) for run in runs[: len(torch_runs)]], "torch": [_warm(run) for run in torch_runs]}
    ratio = speedup(pairs, "tfmb", "torch")
    lines += [
        "",
        f"Mean test accuracy of {len(runs)} seeds: {mean:.4f}. Without the first call, medians: {seconds[0]:.1f} s "
        f"against {seconds[1]:.1f} s; {len(torch_runs)} pairs: {ratio} times less.",
    ]
    found = {"tfmb": runs, "torch": torch_runs, "mean_test_accuracy": mean, "seconds": seconds, "ratio": str(ratio)}
    publish("recipe", found, lines)


def _warm(run: dict[str, Any]) -> float:
    return float(run["training_seconds"] - run["first_call_seconds"])


if __name__ == "__main__":
    main()
