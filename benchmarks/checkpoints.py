"""What checkpoints cost: the reference CNN with one each 100 updates, and with the one at the end alone.

python -m benchmarks.checkpoints [--every 100] [--rounds 9]
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pairs import interleave, speedup
from benchmarks.results import publish

UPDATES, BATCH_SIZE = 500, 64


def peers(every: int, folder: Path) -> dict[str, Callable[[], None]]:
    """Runs of so many updates in new directories, with and without checkpoints on the way."""
    import tfmb
    from benchmarks.reference import build, data

    x, y = data(UPDATES * BATCH_SIZE)
    numbers = iter(range(10**6))

    def run(between: int) -> Callable[[], None]:
        model, optimizer = build(), tfmb.optimizers.Adam(1e-3)

        def once() -> Any:
            tfmb.fit(
                model, x, y, BATCH_SIZE, optimizer=optimizer, seed=0, verbose=0, checkpoint_every=between,
                run_dir=folder / str(next(numbers)),
            )  # fmt: skip

        return once

    return {f"each {every} updates": run(every), "at the end": run(10**9)}


def main() -> None:
    """Measures, prints a table, and leaves JSON and Markdown in `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9, help="measured runs of each peer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = interleave(peers(options.every, Path(folder)), options.rounds)
    often, end = seconds
    cost = speedup(seconds, end, often)
    rows = [f"| {name} | {statistics.median(times):.2f} |" for name, times in seconds.items()]
    table = [f"| checkpoints | seconds for {UPDATES} updates (median) |", "|---|---|", *rows, ""]
    table.append(f"With checkpoints over without: {cost} ({options.rounds} interleaved pairs)")
    report = {
        "every": options.every,
        "seconds": seconds,
        "over_without": vars(cost),
    }
    publish("checkpoints", report, table)


if __name__ == "__main__":
    main()
