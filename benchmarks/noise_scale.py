"""What measuring the gradient noise scale costs, beside the same training cut into the same two parts.

    python -m benchmarks.noise_scale [--batch-size 64] [--rounds 15] [--mirror FOLDER]

With a folder of the official MNIST files it also prints the noise scale of the MLP on MNIST, at the initial weights and
over its first updates.
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
FIRST_UPDATES = (50, 100, 300, 900)


def build(name: str) -> Any:
    """One of our models, compiled with Adam."""
    from tfmb import models
    from tfmb.backend import keras
    from tfmb.data.source import Normalization

    shape, pixels = (28, 28, 1), Normalization(mean=MEAN, std=STD)
    model = models.with_preprocessing(models.MODELS[name](shape, 10, seed=0), shape, pixels)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def peers(name: str, batch_size: int, cut: dict[str, Any]) -> dict[str, Callable[[], None]]:
    """One epoch in two parts, without and with the noise scale."""
    import tfmb

    x, y = data(batch_size * UPDATES)

    def epoch(noise_scale: bool) -> Callable[[], None]:
        model = build(name)
        return lambda: tfmb.fit(
            model, x, y, batch_size=batch_size, seed=0, verbose=0, measure_noise_scale=noise_scale, **cut
        )

    return {"without": epoch(False), "with": epoch(True)}


def scale_on_mnist(mirror: str) -> dict[str, str]:
    """The noise scale of the MLP with its 90 % interval: at the start, and while SGD 0.1 trains it."""
    from tfmb.advice.jobs import problem_of
    from tfmb.advice.short_runs import ShortRuns
    from tfmb.jobs.config import ProblemConfig

    config = ProblemConfig(dataset="mnist", mirror=mirror, model="mlp", optimizer="sgd")
    runs = ShortRuns(problem_of(config)[0])
    found = {"at the initial weights": str(runs.noise_at_start().estimate())}
    for updates in FIRST_UPDATES:
        estimate = runs.noise_scale(updates, learning_rate=0.1).estimate()
        found[f"over the first {updates} updates"] = str(estimate)
    return found


def main() -> None:
    """Measures, prints a table, and leaves JSON and Markdown in `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15, help="measured epochs of each peer")
    parser.add_argument("--mirror", help="folder with the official MNIST files")
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
    scales = {} if options.mirror is None else scale_on_mnist(options.mirror)
    if scales:
        lines += ["", "| MLP on MNIST, SGD 0.1, batch 128 | noise scale |", "|---|---|"]
        lines += [f"| {when} | {scale} |" for when, scale in scales.items()]
    publish(
        f"noise-scale-{options.batch_size}",
        {"batch_size": options.batch_size, "models": report, "on_mnist": scales},
        lines,
    )


if __name__ == "__main__":
    main()
