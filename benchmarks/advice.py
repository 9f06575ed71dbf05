"""Advice beside an exhaustive grid: what it costs, and how near the best batch size and rate it comes.

    python -m benchmarks.advice --mirror FOLDER [--tasks mnist-mlp digits ...] [--seeds 3]

The grid trains 9 batch sizes (8 to 2048, or to half of the data) with 8 rates, one seed, each up to so many examples,
and ends a training where its looks reach the target, as advice does. The grid's best, the advice and the batch size
with the highest throughput (with its best rate) are then timed over some seeds, in turns. S(B) is compared with what
the grid's one seed took, and with the median of those seeds, at the better of the grid's rate and the advised one.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.results import publish

BATCHES = [2**power for power in range(3, 12)]
# In the middle of each optimizer's rates that are of use, in steps of about three.
RATES = {"sgd": np.geomspace(2e-3, 4.0, 8), "adam": np.geomspace(5e-5, 0.1, 8)}
# Of the trainings that are timed: none of them is one that advice trained with.
FIRST_SEED = 101
WITHIN, COST, FASTER, NEAR = 1.15, 0.15, 2.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is learned, to which target, and how many examples a training of the grid may take."""

    make: Callable[[str | None], Any]
    target: str
    optimizer: str
    most_examples: int


def mnist(model: str) -> Callable[[str | None], Any]:
    def make(mirror: str | None) -> Any:
        from tfmb.advice.jobs import problem_of
        from tfmb.jobs.config import ProblemConfig

        optimizer = "sgd" if model == "mlp" else "adam"
        return problem_of(ProblemConfig(dataset="mnist", mirror=mirror, model=model, optimizer=optimizer))[0]

    return make


def digits(_: str | None) -> Any:
    from tfmb.advice.jobs import problem_of
    from tfmb.jobs.config import ProblemConfig

    return problem_of(ProblemConfig(dataset="digits", model="mlp", optimizer="adam"))[0]


def table(_: str | None) -> Any:
    """Friedman's regression of five of ten columns, 20,000 rows."""
    from sklearn.datasets import make_friedman1

    from tfmb.advice.short_runs import AdviceTask
    from tfmb.backend import keras
    from tfmb.data.source import Source
    from tfmb.distribution import make_strategy

    x, y = make_friedman1(n_samples=20_000, noise=0.5, random_state=0)
    y = (y - y.mean()) / y.std()
    source = Source.from_arrays(x.astype("float32"), y.astype("float32")[:, None], name="friedman")
    train, validation = source.hold_out(2000)

    def build() -> Any:
        layers = keras.layers
        parts = [keras.Input((10,)), layers.Dense(64, "relu"), layers.Dense(64, "relu"), layers.Dense(1)]
        return keras.Sequential(parts)

    return AdviceTask(
        build=build, train=train, validation=validation, strategy=make_strategy("auto"), optimizer="adam", loss="mse"
    )


TASKS = {
    "mnist-mlp": Task(make=mnist("mlp"), target="val_loss<=0.15", optimizer="sgd", most_examples=600_000),
    "mnist-cnn": Task(make=mnist("cnn"), target="val_accuracy>=0.97", optimizer="adam", most_examples=80_000),
    "digits": Task(make=digits, target="val_loss<=0.15", optimizer="adam", most_examples=100_000),
    "friedman": Task(make=table, target="val_loss<=0.05", optimizer="adam", most_examples=1_000_000),
}


def run_task(name: str, mirror: str | None, seeds: int) -> dict[str, Any]:
    """All figures of a task."""
    from tfmb.advice.advise import advise_on
    from tfmb.advice.short_runs import ShortRuns
    from tfmb.advice.target import Target
    from tfmb.advice.throughput import measure_throughput

    task = TASKS[name]
    problem, target = task.make(mirror), Target.parse(task.target)
    batches = [size for size in BATCHES if size <= problem.train.size // 2]
    say(f"{name}: advice")
    advice = advise_on(problem, task.target, None, batches, name=name, say=say)
    say(f"{name}: {advice.reason}; {advice.cost_seconds:.1f} s")
    runs = ShortRuns(problem)
    throughput = measure_throughput(runs, batches)
    before = runs.spent_seconds
    grid: dict[tuple[int, float], float | None] = {}
    for size in batches:
        for rate in RATES[task.optimizer]:
            run = runs.run(size, float(rate), target, most_updates=max(1, task.most_examples // size))
            grid[size, float(rate)] = run.updates
        say(f"{name}: grid, batch size {size}, {runs.spent_seconds - before:.0f} s")
    grid_seconds = runs.spent_seconds - before
    times = {key: updates * throughput.seconds(key[0]) for key, updates in grid.items() if updates is not None}
    if not times:
        return {"task": name, "target": task.target, "note": "no training of the grid reached the target"}
    best = min(times, key=lambda key: times[key])
    best_of = {s: min((k for k in times if k[0] == s), key=lambda k: times[k], default=None) for s in batches}
    rivals: dict[str, tuple[int, float] | None] = {
        "grid's best": best,
        "highest throughput": best_of[throughput.fastest],
    }
    if advice.batch_size is not None and advice.learning_rate is not None:
        rivals["advice"] = (advice.batch_size, advice.learning_rate)
    seconds = time_rivals(runs, rivals, target, throughput, seeds, task.most_examples)
    off = rate_errors(advice, best_of)
    predicted = {p.batch_size: p.updates.value for p in advice.predictions}
    held_out = {size: key for size, key in best_of.items() if key is not None and size in predicted}
    errors = {size: predicted[size] / float(grid[key] or math.nan) - 1 for size, key in held_out.items()}
    steady = {}
    for size, (_, rate) in held_out.items():
        advised = None if advice.transfer is None else advice.rate_for(size)
        rates = {rate} if advised is None else {rate, advised}
        took = min(updates_over_seeds(runs, size, one, target, seeds, task.most_examples) for one in rates)
        steady[size] = predicted[size] / took - 1
    return {
        "task": name,
        "target": task.target,
        "grid_best": list(best),
        "advice": None if advice.batch_size is None else [advice.batch_size, advice.learning_rate],
        "seconds": seconds,
        "ratio": ratio(seconds.get("advice"), seconds["grid's best"]),
        "throughput_ratio": ratio(seconds.get("highest throughput"), seconds.get("advice")),
        "cost": advice.cost_seconds / grid_seconds,
        "advice_seconds": advice.cost_seconds,
        "grid_seconds": grid_seconds,
        "rate_off": off,
        "worst_rate_off": max(off.values(), default=None),
        "critical_batch_size": None if advice.curve is None else advice.curve.critical_batch_size.value,
        "prediction_errors": errors,
        "prediction_errors_over_seeds": steady,
    }


def updates_over_seeds(runs: Any, size: int, rate: float, target: Any, seeds: int, most: int) -> float:
    """The median updates to the target; infinite where most seeds missed it."""
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        updates = runs.run(size, rate, target, most_updates=max(1, 2 * most // size), seed=seed).updates
        found.append(math.inf if updates is None else float(updates))
    return statistics.median(found)


def time_rivals(
    runs: Any, rivals: dict[str, Any], target: Any, throughput: Any, seeds: int, most: int
) -> dict[str, float | None]:
    """Median training seconds to the target over seeds of each; None where most seeds missed it."""
    found: dict[str, list[float]] = {name: [] for name in rivals}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for name, rival in rivals.items():
            if rival is None:
                continue
            size, rate = rival
            run = runs.run(size, rate, target, most_updates=max(1, 2 * most // size), seed=seed)
            found[name].append(math.inf if run.updates is None else run.updates * throughput.seconds(size))
    medians = {name: statistics.median(values) if values else math.inf for name, values in found.items()}
    return {name: value if math.isfinite(value) else None for name, value in medians.items()}


def rate_errors(advice: Any, best_of: dict[int, Any]) -> dict[int, float]:
    """How many times the rate that advice gives for a batch size is off the grid's best, whichever way."""
    if advice.transfer is None:
        return {}
    known = {size: key[1] for size, key in best_of.items() if key is not None}
    return {size: math.exp(abs(math.log(advice.rate_for(size) / rate))) for size, rate in known.items()}


def ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", help="folder with the official MNIST files")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3, help="over which rivals are timed")
    options = parser.parse_args()
    from tfmb.environment.console import start_tensorflow

    start_tensorflow()
    found = [run_task(name, options.mirror, options.seeds) for name in options.tasks]
    rows = [
        f"Limits: at most {WITHIN} times the grid's best, at most {COST:.0%} of its cost; MNIST MLP at least {FASTER} "
        f"times as fast as the highest throughput; rates within {NEAR} times.",
        "",
        "| task | target | grid's best | advice | times the best | cost | throughput's over advice | rate off at most "
        "| B_crit | S(B) off at most, from the grid's seed | from the median of seeds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        if "note" in one:
            rows.append(f"| {one['task']} | {one['target']} | {one['note']} | | | | | | | | |")
            continue
        best, advice = one["grid_best"], one["advice"]
        worst, steady = (worst_of(one[f"prediction_errors{name}"]) for name in ("", "_over_seeds"))
        cells = [
            one["task"],
            one["target"],
            f"{best[0]}, {best[1]:.2g}",
            "undetermined" if advice is None else f"{advice[0]}, {advice[1]:.2g}",
            shown(one["ratio"]),
            f"{one['cost']:.0%} ({one['advice_seconds']:.0f} of {one['grid_seconds']:.0f} s)",
            shown(one["throughput_ratio"]),
            shown(one["worst_rate_off"]),
            shown(one["critical_batch_size"], "{:.0f}"),
            shown(worst, "{:.0%}"),
            shown(steady, "{:.0%}"),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    publish("advice", {"tasks": found, "seeds": options.seeds}, rows)


def worst_of(errors: dict[int, float]) -> float | None:
    return max(map(abs, errors.values()), default=None)


def shown(value: float | None, form: str = "{:.2f}") -> str:
    return "-" if value is None else form.format(value)


if __name__ == "__main__":
    main()
