"""What a worker tells an oracle of a trial: its evaluations and its fate, as Keras Tuner's metrics."""

from typing import Any

from .records import Evaluation

__all__ = ["CAUSES", "COUNTS", "DIVERGED", "EXPLODED", "FATE", "as_metrics", "evaluation_of", "history_of"]

# Entries of a report that are no metrics of the model.
COUNTS = ("tfmb/updates", "tfmb/examples", "tfmb/seconds")
# The entry of a report of a trial's end, and its values.
FATE = "tfmb/fate"
DIVERGED, EXPLODED = 1.0, 2.0
CAUSES = {DIVERGED: "the loss or a gradient became NaN or infinite", EXPLODED: "the loss rose far above its start"}


def history_of(trial: Any) -> list[Evaluation]:
    """The evaluations of a trial, from what Keras Tuner keeps of them."""
    by_slice: dict[int, dict[str, float]] = {}
    for name, tracked in trial.metrics.metrics.items():
        for observation in tracked.get_history():
            by_slice.setdefault(int(observation.step), {})[name] = float(observation.value[0])
    return [evaluation_of(number, metrics) for number, metrics in sorted(by_slice.items())]


def as_metrics(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation as the metrics of a report."""
    counts = {f"tfmb/{name}": float(getattr(evaluation, name)) for name in ("updates", "examples", "seconds")}
    return {**evaluation.metrics, **counts}


def evaluation_of(number: int, metrics: dict[str, float]) -> Evaluation:
    """The inverse of `as_metrics`, of slice `number`."""
    return Evaluation(
        slice=number,
        updates=int(metrics["tfmb/updates"]),
        examples=int(metrics["tfmb/examples"]),
        seconds=float(metrics["tfmb/seconds"]),
        metrics={name: float(value) for name, value in metrics.items() if name not in COUNTS},
    )
