"""What cutting batches into parts costs on one device, and what micro-batches save in memory.

python -m benchmarks.parts [--batch-size 64] [--rounds 9] [--large-batch-size 4096]
"""

import argparse
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.pairs import interleave, speedup
from benchmarks.results import publish

UPDATES = 100
PARTS = (1, 2, 4, 8)


def peers(batch_size: int) -> dict[str, Callable[[], None]]:
    """One epoch of the reference CNN without parts and with so many of them."""
    import tfmb
    from benchmarks.reference import build, data

    x, y = data(batch_size * UPDATES)

    def epoch(parts: Any) -> Callable[[], None]:
        model = build()
        return lambda: tfmb.fit(model, x, y, batch_size=batch_size, seed=0, verbose=0, virtual_replicas=parts)

    return {"whole": epoch("auto"), **{f"{parts} parts": epoch(parts) for parts in PARTS}}


def peak_of_one_run(batch_size: int, micro_batch_size: int | None) -> None:
    """Makes three updates of the CNN and prints the process's peak memory before and after them, in MiB."""
    import tfmb
    from benchmarks.reference import build, data

    model = build()
    tfmb.fit(model, *data(32), batch_size=32, verbose=0, seed=0)  # what TensorFlow takes anyway
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tfmb.fit(model, *data(3 * batch_size), batch_size=batch_size, verbose=0, seed=0, micro_batch_size=micro_batch_size)
    print("peak", before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def peak(batch_size: int, micro_batch_size: int | None) -> tuple[float, float]:
    """(peak before, peak after) the large batches in MiB, in a process of its own."""
    given = [] if micro_batch_size is None else ["--micro-batch-size", str(micro_batch_size)]
    command = [sys.executable, "-m", "benchmarks.parts", "--one", "--large-batch-size", str(batch_size), *given]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    before, after = done.stdout.rsplit("peak", 1)[1].split()
    return float(before), float(after)


def main() -> None:
    """Measures, prints tables, and leaves JSON and Markdown in `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9, help="measured epochs of each peer")
    parser.add_argument("--large-batch-size", type=int, default=4096)
    parser.add_argument("--micro-batch-size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    large = options.large_batch_size
    if options.one:
        peak_of_one_run(large, options.micro_batch_size)
        return
    peaks = {size: peak(large, size) for size in (None, large // 4, large // 16, large // 64)}
    seconds = interleave(peers(options.batch_size), options.rounds)
    ratios = {name: speedup(seconds, "whole", name) for name in seconds if name != "whole"}
    lines = ["| parts of a batch | ms an update (median) | over whole batches |", "|---|---|---|"]
    for name, times in seconds.items():
        cost = "1" if name == "whole" else str(ratios[name])
        lines.append(f"| {name} | {1000 * statistics.median(times) / UPDATES:.2f} | {cost} |")
    lines += ["", f"| batch of {large} | peak memory of the updates, MiB |", "|---|---|"]
    for size, (before, after) in peaks.items():
        name = "whole" if size is None else f"micro-batches of {size}"
        lines.append(f"| {name} | {after - before:,.0f} |")
    report = {
        "batch_size": options.batch_size,
        "seconds": seconds,
        "over_whole": {name: vars(ratio) for name, ratio in ratios.items()},
        "large_batch_size": large,
        "peak_mib": {str(size): found for size, found in peaks.items()},
    }
    publish(f"parts-{options.batch_size}", report, lines)


if __name__ == "__main__":
    main()
