"""The loss to minimise and the metrics to measure, as a user of Keras writes them."""

from dataclasses import dataclass
from typing import Any

from tfmb.backend import keras
from tfmb.errors import ConfigError

__all__ = ["LossAndMetrics"]


@dataclass(frozen=True, kw_only=True)
class LossAndMetrics:
    """The arguments of `compile` besides the optimizer."""

    loss: Any = None
    loss_weights: Any = None
    metrics: Any = None
    weighted_metrics: Any = None

    def with_given(self, loss: Any, metrics: Any) -> "LossAndMetrics":
        """Returns the loss and the metrics of a call, each of them this one's where the call has None."""
        return LossAndMetrics(
            loss=self.loss if loss is None else loss,
            loss_weights=self.loss_weights if loss is None else None,
            metrics=self.metrics if metrics is None else metrics,
            weighted_metrics=self.weighted_metrics if metrics is None else None,
        )

    def check(self) -> None:
        """Refuses a name that Keras does not know.

        Raises:
            ConfigError: it names the loss or metric.
        """
        by_fit = ("accuracy", "acc", "crossentropy", "ce")  # which one is meant the outputs decide
        metrics = [self.metrics, self.weighted_metrics]
        for kind, parts, find, where in (
            ("loss", self.loss, keras.losses.get, "losses"),
            ("metric", metrics, keras.metrics.get, "metrics"),
        ):
            for part in keras.tree.flatten(parts):
                if isinstance(part, str) and part.lower() not in by_fit:
                    try:
                        find(part)
                    except ValueError as error:
                        raise ConfigError(
                            f"unknown {kind} {part!r}: give one of keras.{where}, or a function"
                        ) from error

    def names(self) -> list[str]:
        """The names of all of them, in order."""
        parts = keras.tree.flatten([self.loss, self.metrics, self.weighted_metrics])
        return [str(getattr(part, "name", getattr(part, "__name__", part))) for part in parts]
