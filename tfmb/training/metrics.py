"""Metrics as sums: the state that a batch adds to each Keras metric, merged on the host in float64."""

import re
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.training.outputs import per_output

__all__ = ["Metrics"]

# Metrics whose state is made of sums, so that states of parts of the data add up to that of the whole.
_ADDITIVE = tuple(
    getattr(keras.metrics, name)
    for name in (
        "Mean",
        "Sum",
        "RootMeanSquaredError",
        "TruePositives",
        "TrueNegatives",
        "FalsePositives",
        "FalseNegatives",
        "Precision",
        "Recall",
        "AUC",
        "SensitivityAtSpecificity",
        "SpecificityAtSensitivity",
        "PrecisionAtRecall",
        "RecallAtPrecision",
        "IoU",
        "BinaryIoU",
        "MeanIoU",
        "OneHotIoU",
        "OneHotMeanIoU",
        "FBetaScore",
        "F1Score",
        "R2Score",
    )
)
_ADDITIVE_UPDATES = {cls.update_state for cls in _ADDITIVE} | {keras.metrics.MeanMetricWrapper.update_state}


class Metrics:
    """The metrics of a model's outputs.

    Args:
        metrics: a list of names, functions or `keras.metrics.Metric`s; for several outputs a list or dict of such
            by output. They ignore sample weights, as in Keras.
        weighted_metrics: the same, with sample weights.
    """

    def __init__(self, metrics: Any = None, weighted_metrics: Any = None) -> None:
        self._metrics = metrics
        self._weighted_metrics = weighted_metrics
        # (key in the history, metric, output, weighted), known once the first batch was traced.
        self._entries: list[tuple[str, Any, int, bool]] | None = None

    def sums(self, names: list[str], y: list[Any], y_pred: list[Any], weight: list[Any], dtype: Any) -> Any:
        """What one part of a batch adds to every metric's state.

        Args:
            names: the outputs' names.
            y: each output's targets, or None.
            y_pred: each output.
            weight: each output's sample weights, or None.
            dtype: that of the result.

        Returns:
            One vector `[state size of all metrics]`.
        """
        if self._entries is None:
            self._entries = self._resolve(names, y, y_pred)
        pieces = [tf.zeros([0], dtype)]
        for _, metric, output, weighted in self._entries:
            zeros = [tf.zeros(v.shape, v.dtype) for v in metric.variables]
            sample_weight = weight[output] if weighted else None
            state = metric.stateless_update_state(zeros, y[output], y_pred[output], sample_weight)
            pieces += [tf.reshape(tf.cast(value, dtype), [-1]) for value in state]
        return tf.concat(pieces, 0)

    def results(self, sums: np.ndarray) -> dict[str, Any]:
        """The metrics' values (floats, or arrays where a metric has several) from the sums over all batches."""
        results: dict[str, Any] = {}
        start = 0
        for key, metric, _, _ in self._entries or []:
            state = []
            for variable in metric.variables:
                size = int(np.prod(variable.shape))
                piece = sums[start : start + size].reshape(variable.shape)
                state.append(tf.cast(tf.constant(piece), variable.dtype))
                start += size
            value = np.asarray(metric.stateless_result(state))
            results[key] = float(value) if value.ndim == 0 else value
        return results

    def _resolve(self, names: list[str], y: list[Any], y_pred: list[Any]) -> list[tuple[str, Any, int, bool]]:
        entries: list[tuple[str, Any, int, bool]] = []
        taken: dict[str, int] = {}
        for weighted, given in ((False, self._metrics), (True, self._weighted_metrics)):
            for output, identifiers in enumerate(_by_output(given, names, weighted)):
                for identifier in identifiers:
                    metric, name = _metric_object(identifier, y[output], y_pred[output])
                    prefix = f"{names[output]}_" if len(names) > 1 else ""
                    key = prefix + name
                    if key in taken and weighted:
                        key = f"{prefix}weighted_{name}"
                    if key in taken:
                        taken[key] += 1
                        key = f"{key}_{taken[key] - 1}"
                    taken[key] = taken.get(key, 0) + 1
                    entries.append((key, metric, output, weighted))
        return entries


def _by_output(given: Any, names: list[str], weighted: bool) -> list[list[Any]]:
    if not given:
        return [[] for _ in names]
    if len(names) == 1:
        return [keras.tree.flatten(given)]
    entries = per_output(given, names, "weighted_metrics" if weighted else "metrics")
    return [[] if e is None else list(e) if isinstance(e, (list, tuple)) else [e] for e in entries]


def _metric_object(identifier: Any, y: Any, y_pred: Any) -> tuple[Any, str]:
    """The Keras metric of an identifier and the name it goes by, resolved as `compile` does."""
    if str(identifier).lower() in ("accuracy", "acc"):
        name = str(identifier)
        if y_pred.shape[-1] == 1:
            return keras.metrics.BinaryAccuracy(name=name), name
        if len(y.shape) < len(y_pred.shape) or y.shape[-1] == 1:
            return keras.metrics.SparseCategoricalAccuracy(name=name), name
        return keras.metrics.CategoricalAccuracy(name=name), name
    try:
        found = keras.metrics.get(identifier)
    except ValueError as error:
        raise ConfigError(f"unknown metric {identifier!r}: give one of keras.metrics, or a function") from error
    if isinstance(found, keras.metrics.Metric):
        name = identifier if isinstance(identifier, str) else found.name
        if type(found).update_state not in _ADDITIVE_UPDATES:
            raise ConfigError(
                f"the metric {name!r} ({type(found).__name__}) keeps a state that tfmb does not know to add up: "
                "give it as a function (y_true, y_pred), or as a subclass of keras.metrics.Mean"
            )
        return found, name
    if isinstance(found, keras.losses.Loss):
        raise ConfigError(f"the metric {found.name} is a loss object: give its function or keras.metrics counterpart")
    name = identifier if isinstance(identifier, str) else _snake_case(getattr(found, "__name__", type(found).__name__))
    return keras.metrics.MeanMetricWrapper(found, name=name), name


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
