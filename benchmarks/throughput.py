"""Examples/s of our loop and of `keras.Model.fit`: the same CNN, data, batch and Adam, in one interleaved run.

python -m benchmarks.throughput [--batch-size 64] [--rounds 9]
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

import tfmb
from benchmarks.pairs import interleave, speedup
from benchmarks.results import publish
from tfmb.backend import keras
from tfmb.data.source import Normalization

UPDATES = 150


def build() -> Any:
    """The reference CNN with its preprocessing, compiled with Keras's Adam."""
    bare = tfmb.models.cnn((28, 28, 1), 10, seed=0)
    model = tfmb.models.with_preprocessing(bare, (28, 28, 1), Normalization(mean=0.1307, std=0.3081))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"])
    return model


def peers(batch_size: int, examples: int) -> dict[str, Callable[[], None]]:
    """One epoch over the same uint8 images, each peer with a model of its own."""
    numbers = np.random.default_rng(0)
    x = numbers.integers(0, 256, (examples, 28, 28, 1)).astype(np.uint8)
    y = numbers.integers(0, 10, examples)
    ours, theirs = build(), build()
    return {
        "tfmb.fit": lambda: tfmb.fit(ours, x, y, batch_size=batch_size, seed=0, verbose=0),
        "keras fit": lambda: theirs.fit(x, y, batch_size=batch_size, verbose=0),
    }


def main() -> None:
    """Measures, prints a table, and leaves JSON and Markdown in `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=21, help="measured epochs of each peer")
    options = parser.parse_args()
    examples = options.batch_size * UPDATES
    seconds = interleave(peers(options.batch_size, examples), options.rounds)
    ratio = speedup(seconds, "tfmb.fit", "keras fit")
    rates = {name: examples / statistics.median(times) for name, times in seconds.items()}
    report = {
        "model": "cnn",
        "batch_size": options.batch_size,
        "updates_an_epoch": UPDATES,
        "seconds": seconds,
        "examples_per_second": rates,
        "speedup_over_keras_fit": vars(ratio),
    }
    rows = [f"| {name} | {rate:,.0f} |" for name, rate in rates.items()]
    table = ["| peer | examples/s (median) |", "|---|---|", *rows]
    table += ["", f"tfmb.fit over keras fit, batch {options.batch_size}: {ratio} ({options.rounds} interleaved pairs)"]
    publish(f"throughput-cnn-{options.batch_size}", report, table)


if __name__ == "__main__":
    main()
