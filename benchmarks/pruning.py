"""What stopping the worse trials early saves, and what it costs: paired searches of the MLP on MNIST.

    python -m benchmarks.pruning --mirror FOLDER [--seeds 10] [--trials 20] [--epochs 3]

For each seed the same random trials are searched without and with pruning, in turns; the accuracy is the test split's,
of the model that each search ends with. (The searches never see that split.)
"""

import argparse
import statistics
import time
from typing import Any

from benchmarks.results import publish


def one(mirror: str, trials: int, epochs: int, seed: int, pruned: bool) -> tuple[float, float]:
    """(seconds, test accuracy of the best model) of a search."""
    import tfmb
    from benchmarks.tuning import build_model, data
    from tfmb.backend import keras
    from tfmb.data import load

    train, validation, normalization = data(mirror)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    started = time.perf_counter()
    result = tfmb.tune(
        lambda hp: build_model("mlp", normalization),
        *train,
        validation_data=validation,
        loss=loss,
        metrics=["accuracy"],
        max_trials=trials,
        oracle="random",
        batch_size=(16, 512),
        learning_rate=(1e-4, 1e-1),
        epochs=epochs,
        pruning=pruned,
        seed=seed,
    )
    seconds = time.perf_counter() - started
    test = load("mnist", mirror).test
    assert test is not None
    logs = tfmb.evaluate(
        result.best_model(), test.examples, test.labels, loss=loss, metrics=["accuracy"], verbose=0, return_dict=True
    )
    return seconds, float(logs["accuracy"])


def main() -> None:
    """Measures, prints a table, and leaves JSON and Markdown in `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mirror", required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    found: dict[bool, list[Any]] = {False: [], True: []}
    one(options.mirror, 1, 1, 0, False)  # what a process does once
    lines = ["| seed | all, s | accuracy | pruned, s | accuracy |", "|---|---|---|---|---|"]
    for seed in range(options.seeds):
        for pruned in (False, True) if seed % 2 == 0 else (True, False):
            found[pruned].append(one(options.mirror, options.trials, options.epochs, seed, pruned))
        (whole, right), (short, kept) = found[False][-1], found[True][-1]
        lines.append(f"| {seed} | {whole:.1f} | {right:.4f} | {short:.1f} | {kept:.4f} |")
    pairs = list(zip(found[False], found[True], strict=True))
    share = statistics.median(pruned[0] / whole[0] for whole, pruned in pairs)
    lost = statistics.mean(100 * (whole[1] - pruned[1]) for whole, pruned in pairs)
    lines += ["", f"Time with pruning over without, median: {share:.2f}; accuracy lost, mean: {lost:.2f} points"]
    publish("pruning", {"all": found[False], "pruned": found[True]}, lines)


if __name__ == "__main__":
    main()
