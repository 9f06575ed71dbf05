"""Metrics as sums: the state that a batch adds to each Keras metric, merged on the host in float64."""

from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.training.outputs import function_name, per_output

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

    def sums(
        self,
        names: list[str],
        y: list[Any],
        y_pred: list[Any],
        weight: list[Any],
        dtype: Any,
        share: Any = 1.0,
        present: Any = None,
    ) -> Any:
        """What one part of a batch adds to every metric's state.

        Args:
            names: the outputs' names.
            y: each output's targets, or None.
            y_pred: each output.
            weight: each output's sample weights, or None.
            dtype: that of the result.
            share: the part's share of the batch's rows.
            present: bools `[rows]`, False for rows that only fill up the part and count for nothing; None for none.

        Returns:
            One vector `[state size of all metrics]`.
        """
        self.resolve(names, y, y_pred)
        pieces = [tf.zeros([0], dtype)]
        for _, metric, output, weighted in self._entries or []:
            zeros = [tf.zeros(v.shape, v.dtype) for v in metric.variables]
            sample_weight = weight[output] if weighted else None
            if isinstance(metric, _FunctionMetric):
                metric.share = share
            if present is not None:
                sample_weight = _present_weight(metric, present, sample_weight)
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

    def resolve(self, names: list[str], y: list[Any], y_pred: list[Any]) -> None:
        """Makes the metrics for outputs of these names and shapes, once.

        Raises:
            ConfigError: a metric that is unknown, or whose state does not add up.
        """
        if self._entries is not None:
            return
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
        self._entries = entries


def _present_weight(metric: Any, present: Any, sample_weight: Any) -> Any:
    """Sample weights that leave out the rows that are not there."""
    if isinstance(metric, keras.metrics.R2Score) and metric.num_regressors:
        raise ConfigError(
            f"the metric {metric.name!r} counts the rows that fill up a batch: set static_shapes=False, or "
            "num_regressors=0"
        )
    if isinstance(metric, _FunctionMetric):
        metric.per_row = True
    if sample_weight is None:
        return tf.cast(present, keras.config.floatx())
    sample_weight = tf.convert_to_tensor(sample_weight)
    return sample_weight * tf.cast(
        tf.reshape(present, [-1] + [1] * (sample_weight.shape.rank - 1)), sample_weight.dtype
    )


def _by_output(given: Any, names: list[str], weighted: bool) -> list[list[Any]]:
    if not given:
        return [[] for _ in names]
    if len(names) == 1:
        return [keras.tree.flatten(given)]
    entries = per_output(given, names, "weighted_metrics" if weighted else "metrics")
    return [[] if e is None else list(e) if isinstance(e, (list, tuple)) else [e] for e in entries]


def _adds_up(metric: Any) -> bool:
    """Whether the metric's state is made of sums: one of Keras's own, or a subclass of `Mean` with `Mean`'s state."""
    if type(metric).update_state in _ADDITIVE_UPDATES:
        return True
    mean, wrapper = keras.metrics.Mean, keras.metrics.MeanMetricWrapper
    own = isinstance(metric, mean) and not isinstance(metric, wrapper)
    return own and type(metric).result is mean.result and len(metric.variables) == 2


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
        if not _adds_up(found):
            raise ConfigError(
                f"the metric {name!r} ({type(found).__name__}) keeps a state that tfmb does not know to add up: "
                "give it as a function (y_true, y_pred), or as a subclass of keras.metrics.Mean"
            )
        return found, name
    if isinstance(found, keras.losses.Loss):
        raise ConfigError(f"the metric {found.name} is a loss object: give its function or keras.metrics counterpart")
    name = identifier if isinstance(identifier, str) else function_name(found)
    return _FunctionMetric(found, name=name), name


class _FunctionMetric(keras.metrics.MeanMetricWrapper):
    """A user's function as a metric; one that returns the mean of its rows counts by the part's share of the batch."""

    share: Any = 1.0
    per_row = False

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """As Keras's, but for functions that return a scalar."""
        values = self._fn(y_true, y_pred, **self._fn_kwargs)
        if getattr(values, "shape", None) is None or len(values.shape):
            return super().update_state(y_true, y_pred, sample_weight)
        if self.per_row:
            raise ConfigError(
                f"the metric {self.name!r} returns one number for a batch, from which the rows that fill it up cannot "
                "be taken: return one for each example, or set static_shapes=False"
            )
        share = tf.cast(self.share, values.dtype)
        known = tf.where(share > 0, values, tf.zeros_like(values))  # the mean of no rows is NaN
        return keras.metrics.Mean.update_state(self, known, sample_weight=share)
