"""A search beside those of its peers: the same trials of batch size and learning rate, the same budget, one at a time.

    python -m benchmarks.tuning --mirror FOLDER [--model mlp] [--trials 20] [--rounds 3] [--epochs 1]

The peers are Keras Tuner, Optuna with its own pruner, and Ray Tune, each around `keras.Model.fit`. Optuna and Ray are
given the trials that tfmb drew. Keras Tuner searches the batch size as its documentation shows, by a `HyperModel.fit`.
Each search is a process of its own, and they take turns. The overhead between two trials is all that is neither
training nor validation, of trials that share the batch size of the one before.
"""

import argparse
import functools
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.peers.tuners import optuna_search, ray_search
from benchmarks.results import publish

PEERS = ("tfmb", "tfmb, pruned", "keras tuner", "optuna", "ray tune")
BATCHES, RATES = [32, 64, 128, 256], (1e-4, 1e-1)
SEED = 11


def data(mirror: str) -> Any:
    """`(train images, labels), (validation images, labels), normalization` of MNIST."""
    from tfmb.data import load

    splits = load("mnist", mirror)
    train, validation = splits.train.hold_out(6000)
    return (train.examples, train.labels), (validation.examples, validation.labels), splits.normalization


def build_model(name: str, normalization: Any) -> Any:
    """The same model for both, without an optimizer."""
    from tfmb import models

    return models.with_preprocessing(models.MODELS[name]((28, 28, 1), 10, seed=0), (28, 28, 1), normalization)


def ours(options: argparse.Namespace, pruned: bool) -> dict[str, Any]:
    """Values, scores and overheads of a search by `tfmb.tune`."""
    import tfmb
    from tfmb.backend import keras
    from tfmb.training.scoring import Validation

    train, validation, normalization = data(options.mirror)
    scoring: list[float] = []
    score = Validation.logs

    def timed(self: Any, *about: Any) -> Any:
        started = time.perf_counter()
        found = score(self, *about)
        scoring.append(time.perf_counter() - started)
        return found

    ends: list[tuple[float, float, float]] = []
    started = time.perf_counter()

    def watch(record: Any) -> None:
        trained = sum(t.history[-1].seconds for t in record.trials if t.history)
        ends.append((time.perf_counter(), trained, sum(scoring)))

    with mock.patch.object(Validation, "logs", timed):
        result = tfmb.tune(
            lambda hp: build_model(options.model, normalization),
            *train,
            validation_data=validation,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            max_trials=options.trials,
            oracle="random",
            batch_size=BATCHES,
            learning_rate=RATES,
            epochs=options.epochs,
            pruning=pruned,
            seed=SEED,
            watch=watch,
        )
    seconds = time.perf_counter() - started
    values = [t.values for t in result.trials]
    gaps = [(b[0] - a[0]) - (b[1] - a[1]) - (b[2] - a[2]) for a, b in itertools.pairwise(ends)]
    return _found(seconds, values, [t.score for t in result.trials], gaps if not pruned else [])


def stock(options: argparse.Namespace) -> dict[str, Any]:
    """The same of Keras Tuner's `RandomSearch`."""
    import keras
    import keras_tuner

    train, validation, normalization = data(options.mirror)

    class Clock(keras.callbacks.Callback):
        """Training and validation without what the first batch of each traces."""

        def __init__(self) -> None:
            super().__init__()
            self.train = self.test = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._batches: list[float] = []
            self._tests: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self._batches.append(time.perf_counter())

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            self._tests.append(time.perf_counter())

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.train += _whole(self._batches)
            self.test += _whole(self._tests)

    clock = Clock()
    ends: list[tuple[float, float, float]] = []

    class Model(keras_tuner.HyperModel):
        def build(self, hp: Any) -> Any:
            # In the order in which tfmb declares them, so that both draw the same.
            hp.Choice("batch_size", BATCHES)
            hp.Fixed("augment", "")
            rate = hp.Float("learning_rate", *RATES, sampling="log", default=0.00316)
            for name, value in (("optimizer", "adam"), ("schedule", "constant"), ("warmup", 0)):
                hp.Fixed(name, value)
            model = build_model(options.model, normalization)
            model.compile(
                keras.optimizers.Adam(rate),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )
            return model

        def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            kwargs["callbacks"] = [*kwargs.get("callbacks", []), clock]
            return model.fit(*args, batch_size=hp.get("batch_size"), **kwargs)

    class Search(keras_tuner.RandomSearch):
        def on_trial_end(self, trial: Any) -> None:
            super().on_trial_end(trial)
            ends.append((time.perf_counter(), clock.train, clock.test))

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        tuner = Search(
            Model(), objective="val_loss", max_trials=options.trials, seed=SEED + 1, directory=folder,
            max_consecutive_failed_trials=10**6,
        )  # fmt: skip
        tuner.search(*train, epochs=options.epochs, validation_data=validation, verbose=0)
        seconds = time.perf_counter() - started
        trials = [tuner.oracle.trials[name] for name in tuner.oracle.start_order]
    gaps = [(b[0] - a[0]) - (b[1] - a[1]) - (b[2] - a[2]) for a, b in itertools.pairwise(ends)]
    return _found(seconds, [t.hyperparameters.values for t in trials], [t.score for t in trials], gaps)


def _whole(times: list[float]) -> float:
    """Seconds of all batches, from the times at which they ended: the first is taken to be like the others."""
    return (times[-1] - times[0]) * len(times) / max(len(times) - 1, 1) if times else 0.0


def _found(seconds: float, values: list[Any], scores: list[Any], gaps: list[float]) -> dict[str, Any]:
    kept = [[v["batch_size"], v["learning_rate"]] for v in values]
    same = [gap for gap, (a, b) in zip(gaps, itertools.pairwise(kept), strict=False) if a[0] == b[0]]
    return {"seconds": seconds, "values": kept, "scores": scores, "overheads": same}


def _one(options: argparse.Namespace) -> dict[str, Any]:
    """The search of one peer, in a process of its own."""
    if options.one.startswith("tfmb"):
        return ours(options, options.one.endswith("pruned"))
    if options.one == "keras tuner":
        return stock(options)
    search = optuna_search if options.one == "optuna" else ray_search
    build = functools.partial(build_model, options.model)
    return search(json.loads(options.values), data(options.mirror), build, options.epochs)


def main() -> None:
    """Measures, prints a table, and leaves JSON and Markdown in `benchmarks/results`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mirror", required=True)
    parser.add_argument("--model", choices=("mlp", "cnn"), default="mlp")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--values", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        found = _one(options)
        print("found " + json.dumps(found))
        return
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in PEERS}
    for number in range(options.rounds):
        for name in PEERS if number % 2 == 0 else PEERS[::-1]:  # the first round begins with tfmb, which draws
            drawn = [] if not runs["tfmb"] else ["--values", json.dumps(runs["tfmb"][0]["values"])]
            command = [sys.executable, "-m", "benchmarks.tuning", *sys.argv[1:], "--one", name, *drawn]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path.cwd())
            line = next(line for line in done.stdout.splitlines() if line.startswith("found "))
            runs[name].append(json.loads(line[6:]))
    theirs = statistics.median(run["seconds"] for run in runs["keras tuner"])
    lines = [
        "| search | seconds | times faster | overhead between two trials, s | best score |",
        "|---|---|---|---|---|",
    ]
    for name, rounds in runs.items():
        seconds = statistics.median(run["seconds"] for run in rounds)
        gaps = [gap for run in rounds for gap in run["overheads"]]
        best = min(score for run in rounds for score in run["scores"] if score is not None)
        gap = f"{statistics.median(gaps):.3f} ({len(gaps)} pairs)" if gaps else "-"
        lines.append(f"| {name} | {seconds:.1f} | {theirs / seconds:.2f} | {gap} | {best:.4f} |")
    same = all(run["values"] == runs["keras tuner"][0]["values"] for name in PEERS for run in runs[name])
    lines += ["", f"{options.model}, {options.trials} trials, {options.rounds} rounds; the same trials in all: {same}"]
    publish(f"tuning-{options.model}", {"runs": runs, "model": options.model}, lines)


if __name__ == "__main__":
    main()
