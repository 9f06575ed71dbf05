"""Metrics as sums: the state that a batch adds to each Keras metric, merged on the host in float64."""

from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.types import Data, DType, Tensor

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
    """The metrics of a model's outputs: Keras's own objects, of a compiled model, used without touching their state."""

    def __init__(self) -> None:
        # (metric, output, weighted), known once they were resolved.
        self.entries: list[tuple[Any, int, bool]] = []

    def sums(
        self,
        y: list[Any],
        y_pred: list[Any],
        weight: list[Any],
        dtype: DType,
        share: Any = 1.0,
        present: Tensor = None,
    ) -> Any:
        """Returns the contribution of one part of a batch to every metric's state.

        Args:
            y: each output's targets, or None.
            y_pred: each output.
            weight: each output's sample weights, or None.
            dtype: the dtype of the result.
            share: the part's share of the batch's rows.
            present: bools `[rows]`, False for rows that only fill up the part and count for nothing; None for none.

        Returns:
            One vector `[state size of all metrics]`.
        """
        pieces = [tf.zeros([0], dtype)]
        for metric, output, weighted in self.entries:
            state = self.state_of(
                metric, y[output], y_pred[output], weight[output] if weighted else None, share, present
            )
            pieces += [tf.reshape(tf.cast(value, dtype), [-1]) for value in state]
        return tf.concat(pieces, 0)

    def state_of(
        self, metric: Any, y: Data, y_pred: Tensor, weight: Tensor, share: Any = 1.0, present: Tensor = None
    ) -> list[Any]:
        """Returns the rows' contribution to one metric's state: see `sums`."""
        value = _value_of_all_rows(metric, y, y_pred)
        if value is not None:
            return _mean_of_rows(metric, value, share, present)
        if present is not None:
            weight = _present_weight(metric, present, weight)
        zeros = [tf.zeros(v.shape, v.dtype) for v in metric.variables]
        return list(metric.stateless_update_state(zeros, y, y_pred, weight))

    @property
    def variables(self) -> list[Any]:
        """Each metric's variables, in the order of `sums`."""
        return [variable for metric, _, _ in self.entries for variable in metric.variables]

    def values(self, sums: np.ndarray) -> list[tuple[Any, Any]]:
        """(each metric's variable, its value) from the sums over all batches."""
        found: list[tuple[Any, Any]] = []
        start = 0
        for variable in self.variables:
            size = int(np.prod(variable.shape))
            piece = sums[start : start + size].reshape(variable.shape)
            found.append((variable, tf.cast(tf.constant(piece), variable.dtype)))
            start += size
        return found

    def resolve(self, compile_metrics: Any, names: list[str]) -> None:
        """Takes the metrics of Keras's `CompileMetrics`, which has seen outputs of these names; None for no metrics.

        Raises:
            ConfigError: a metric whose state does not add up.
        """
        entries: list[tuple[Any, int, bool]] = []
        if compile_metrics is not None:
            for weighted, lists in (
                (False, compile_metrics._flat_metrics),
                (True, compile_metrics._flat_weighted_metrics),
            ):
                for number, found in enumerate(lists):
                    if found:
                        # Keras flattens a dict of outputs in an order of its own.
                        output = names.index(found.output_name) if found.output_name in names else number
                        entries += [(metric, output, weighted) for metric in found.metrics]
        for metric, _, _ in entries:
            if not _adds_up(metric):
                raise ConfigError(
                    f"the metric {metric.name!r} ({type(metric).__name__}) keeps a state that may not add "
                    "up over the parts of a batch: use one device without virtual_replicas and micro_batch_size, give "
                    "it as a function (y_true, y_pred), or as a subclass of keras.metrics.Mean"
                )
        self.entries = entries


def _value_of_all_rows(metric: Any, y_true: Any, y_pred: Tensor) -> Any:
    """Returns the value of a metric's function for all rows at once, if that is one number; else None."""
    if type(metric).update_state is not keras.metrics.MeanMetricWrapper.update_state:
        return None
    value = metric._fn(y_true, y_pred, **metric._fn_kwargs)
    return None if getattr(value, "shape", None) is None or len(value.shape) else value


def _mean_of_rows(metric: Any, value: Any, share: Any, present: Tensor) -> list[Any]:
    """The state of a mean of batches' values, of which a part counts by its share of the rows."""
    if present is not None:
        raise ConfigError(
            f"the metric {metric.name!r} returns one number for a batch, so the rows that fill up the batch cannot be "
            "left out: return one number per example, or set pad_batches=False"
        )
    share = tf.cast(share, value.dtype)
    return [tf.where(share > 0, value, tf.zeros_like(value)) * share, share]  # the mean of no rows is NaN


def _present_weight(metric: Any, present: Tensor, sample_weight: Data) -> Any:
    """Sample weights that leave out the rows that are not there."""
    if isinstance(metric, keras.metrics.R2Score) and metric.num_regressors:
        raise ConfigError(
            f"the metric {metric.name!r} counts the rows that fill up a batch: set pad_batches=False, or "
            "num_regressors=0"
        )
    if sample_weight is None:
        return tf.cast(present, keras.config.floatx())
    sample_weight = tf.convert_to_tensor(sample_weight)
    return sample_weight * tf.cast(
        tf.reshape(present, [-1] + [1] * (sample_weight.shape.rank - 1)), sample_weight.dtype
    )


def _adds_up(metric: Any) -> bool:
    """Whether the metric's state is made of sums: one of Keras's own, or a subclass of `Mean` with `Mean`'s state."""
    if type(metric).update_state in _ADDITIVE_UPDATES:
        return True
    mean, wrapper = keras.metrics.Mean, keras.metrics.MeanMetricWrapper
    own = isinstance(metric, mean) and not isinstance(metric, wrapper)
    return own and type(metric).result is mean.result and len(metric.variables) == 2
