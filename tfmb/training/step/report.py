"""The report of a step, as one float vector with named entries.

Many steps of a call report in one tensor, and the reports of an epoch add up: so a report is a vector. Its layout is
known here and nowhere else:

| entries | what they are |
|---|---|
| loss | the mean loss of the batch |
| examples | the number of examples in the batch |
| scores | what the logs of an epoch are made of: `EpochScores`; none where Keras's own objects keep them |
| noise | the estimates of tr(Sigma) and of |G|^2: see `noise_scale`; none unless they are measured |
| clipped | 1 if the gradients were clipped, else 0 |
| applied | 1 if the update was made, else 0 |

A batch that is only scored reports no noise, clipped or applied.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfmb.backend import tf
from tfmb.types import DType, Tensor

__all__ = [
    "PLAIN_WIDTH",
    "EpochScores",
    "ReportView",
    "after_update",
    "of_batch",
    "of_whole_batch",
    "width",
    "with_noise",
    "without_scores",
]

# Without scores and noise.
PLAIN_WIDTH = 4


@dataclass(frozen=True)
class EpochScores:
    """The entries that the logs of an epoch are made of, as they stand in a sum of reports.

    Attributes:
        weighted_loss: the sum of each batch's loss times its number of examples.
        batches: the number of batches.
        of_outputs: the sum of each output's mean losses.
        of_metrics: the sums of the metrics' variables, one after the other.
    """

    weighted_loss: float
    batches: float
    of_outputs: np.ndarray
    of_metrics: np.ndarray


@dataclass(frozen=True)
class ReportView:
    """The entries of reports by their names.

    Attributes:
        values: `[width]`, a report or a sum of reports; or `[steps, width]`.
        has_noise: whether the reports hold the noise in gradients.
    """

    values: np.ndarray
    has_noise: bool = False

    @property
    def loss(self) -> Any:
        """The loss: see the module."""
        return self.values[..., 0]

    @property
    def examples(self) -> Any:
        """The number of examples: see the module."""
        return self.values[..., 1]

    def scores(self, outputs: int) -> EpochScores:
        """See the module.

        Args:
            outputs: the number of the model's outputs that have a loss.
        """
        weighted_loss, batches, *rest = self.values[2:]
        of_outputs, of_metrics = np.array(rest[:outputs]), np.array(rest[outputs:])
        return EpochScores(weighted_loss, batches, of_outputs, of_metrics)

    @property
    def noise(self) -> Any:
        """The noise, `[..., 2]`: see the module."""
        return self.values[..., -4:-2] if self.has_noise else self.values[..., :0]

    @property
    def clipped(self) -> Any:
        """The entry `clipped`: see the module."""
        return self.values[..., -2]

    @property
    def applied(self) -> Any:
        """The entry `applied`: see the module."""
        return self.values[..., -1]


def of_batch(loss: Tensor, examples: Any, of_outputs: Any, of_metrics: Any) -> Any:
    """A report of a batch that was scored, with scores.

    Args:
        loss: the mean loss of the batch, a scalar.
        examples: the number of its examples, a scalar of the same dtype.
        of_outputs: `[outputs]`, the mean loss of each output.
        of_metrics: `[entries]`, the batch's addition to the variables of the metrics.
    """
    return tf.concat([tf.stack([loss, examples, loss * examples, tf.ones_like(examples)]), of_outputs, of_metrics], 0)


def of_whole_batch(loss: Tensor, examples: Any, clipped: Any, applied: Any, dtype: DType) -> Any:
    """A report `[4]` whose scores Keras's own objects keep.

    Args:
        loss: the mean loss of the batch, a scalar.
        examples: the number of its examples, a scalar.
        clipped: whether the gradients were clipped, a scalar bool; it counts only where the update was made.
        applied: whether the update was made, a scalar bool.
        dtype: of the report.
    """
    made = tf.cast(applied, dtype)
    return tf.stack([tf.cast(loss, dtype), tf.cast(examples, dtype), tf.cast(clipped, dtype) * made, made])


def with_noise(report: Any, noise: Any) -> Any:
    """The report with the estimates `[tr(Sigma), |G|^2]` behind what `of_batch` gave."""
    return tf.concat([report, noise], 0)


def after_update(report: Any, clipped: Any, applied: Any) -> Any:
    """The report of a batch that was trained on.

    Args:
        report: `[width]`, as `of_batch` or `with_noise` gave it.
        clipped: as in `of_whole_batch`.
        applied: as in `of_whole_batch`.
    """
    made = tf.cast(applied, report.dtype)
    return tf.concat([report, [tf.cast(clipped, report.dtype) * made, made]], 0)


def without_scores(sums: tuple[float, ...]) -> tuple[float, ...]:
    """The entries of a sum of reports with scores that a report without them has too."""
    return (*sums[:2], *sums[-2:])


def width(outputs: int, metric_entries: int, has_noise: bool) -> int:
    """The number of entries of a report with scores, after an update.

    Args:
        outputs: the number of outputs that have a loss.
        metric_entries: the number of entries of all the metrics' variables.
        has_noise: whether it holds the noise in gradients.
    """
    return 4 + outputs + metric_entries + 2 * has_noise + 2
