"""The reports of a trial as Keras Tuner's metrics: its evaluations and its fate."""

from .records import Evaluation

__all__ = ["CAUSES", "COUNTS", "DIVERGED", "EXPLODED", "FAILED", "as_metrics", "evaluation_of"]

# Entries of a report that are no metrics of the model.
COUNTS = ("tfmb/updates", "tfmb/examples", "tfmb/seconds")
# The fates of trials that are cut short, as the journal has them.
DIVERGED, EXPLODED, FAILED = 1.0, 2.0, 3.0
CAUSES = {
    DIVERGED: "the loss or a gradient became NaN or infinite",
    EXPLODED: "the loss rose far above its start",
    FAILED: "it failed",
}


def as_metrics(evaluation: Evaluation) -> dict[str, float]:
    """An evaluation as the metrics of a report."""
    names = ("updates", "examples", "seconds", *(() if evaluation.epochs is None else ("epochs",)))
    return {**evaluation.metrics, **{f"tfmb/{name}": float(getattr(evaluation, name)) for name in names}}


def evaluation_of(number: int, metrics: dict[str, float]) -> Evaluation:
    """The inverse of `as_metrics`, of slice `number`."""
    return Evaluation(
        slice=number,
        updates=int(metrics["tfmb/updates"]),
        examples=int(metrics["tfmb/examples"]),
        seconds=float(metrics["tfmb/seconds"]),
        metrics={name: float(value) for name, value in metrics.items() if not name.startswith("tfmb/")},
        epochs=metrics.get("tfmb/epochs"),
    )
