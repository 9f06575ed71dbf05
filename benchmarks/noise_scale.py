"""What measuring the gradient noise scale costs, beside the same training cut into the same two parts.

python -m benchmarks.noise_scale [--batch-size 64] [--rounds 15]
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.pairs import interleave, speedup
from benchmarks.peers import MEAN, STD
from benchmarks.reference import data
from benchmarks.results import publish

UPDATES = 100
MODELS = ("mlp", "cnn")


def build(name: str) -> Any:
    """One of our models, compiled with Adam."""
    from tfmb import models
    from tfmb.backend import keras
    from tfmb.data.source import Normalization

    shape, pixels = (28, 28, 1), Normalization(mean=MEAN, std=STD)
    model = models.with_preprocessing(models.MODELS[name](shape, 10, seed=0), shape, pixels)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def peers(name: str, batch_size: int, cut: dict[str, int]) -> dict[str, Callable[[], None]]:
    """One epoch in two parts, without and with the noise scale."""
    import tfmb

    x, y = data(batch_size * UPDATES)

    def epoch(noise_scale: bool) -> Callable[[], None]:
        model = build(name)
        return lambda: tfmb.fit(model, x, y, batch_size=batch_size, seed=0, verbose=0, noise_scale=noise_scale, **cut)

    return {"without": epoch(False), "with": epoch(True)}


def main() -> None:
    """Measures, prints a table, and leaves JSON and Markdown in `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15, help="measured epochs of each peer")
    options = parser.parse_args()
    lines = ["| model | two parts | ms an update (median) | with the noise scale, over without |", "|---|---|---|---|"]
    report: dict[str, Any] = {}
    for name in MODELS:
        for words, cut in (
            ("virtual_replicas=2", {"virtual_replicas": 2}),
            ("micro_batch_size", {"micro_batch_size": options.batch_size // 2}),
        ):
            seconds = interleave(peers(name, options.batch_size, cut), options.rounds)
            ratio = speedup(seconds, "without", "with")
            each = 1000 * statistics.median(seconds["without"]) / UPDATES
            lines.append(f"| {name} | {words} | {each:.2f} | {ratio} |")
            report[f"{name}, {words}"] = {"seconds": seconds, "over_without": vars(ratio)}
    publish(f"noise-scale-{options.batch_size}", {"batch_size": options.batch_size, "models": report}, lines)


if __name__ == "__main__":
    main()
