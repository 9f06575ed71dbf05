"""Keras callbacks of ours, for `keras.Model.fit` and for `tfmb.fit`.

Example:
    >>> watcher = tfmb.callbacks.NoiseScale(x, y, every=1)
    >>> history = model.fit(x, y, epochs=1, callbacks=[watcher], verbose=0)
    >>> history.history["noise_scale"]
    [...]
"""

import math
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.choices import check_counts
from tfmb.data.records import Records
from tfmb.errors import ConfigError
from tfmb.optimizers.optimizer import raw_variable
from tfmb.seeds import derive
from tfmb.training.input.data_adapter import to_source
from tfmb.training.step.noise_scale import NoiseEstimate
from tfmb.training.step.noise_scale import NoiseScaleEstimator as Estimator
from tfmb.training.step.reduction import square_of
from tfmb.types import Data

__all__ = ["NoiseScale"]


class NoiseScale(keras.callbacks.Callback):
    """Measures the gradient noise scale while a model trains: in the logs of each epoch as `noise_scale`.

    `fit` shows callbacks no gradients, so this one computes its own now and then: those of two random batches, whose
    squares beside that of their mean tell the noise. `tfmb.fit(measure_noise_scale=True)` needs none for it.

    Put it before the callbacks that are to see the value. It is NaN while it is undetermined.

    Args:
        x: examples to draw from, as in `fit`: arrays `[n, ...]`.
        y: their targets.
        batch_size: examples of each of the two batches.
        every: updates between two measurements; with 20 and the training's own batch size it costs about a tenth.
        window: the number of measurements that count: see `tfmb.training.step.noise_scale.NoiseScaleEstimator`.
        seed: decides the draws.

    Raises:
        ConfigError: arguments that make no sense.

    Example:
        >>> model.fit(x, y, callbacks=[tfmb.callbacks.NoiseScale(x, y), keras.callbacks.TensorBoard()])
    """

    def __init__(
        self, x: Data, y: Data, batch_size: int = 32, every: int = 20, window: int | None = 200, seed: int = 0
    ) -> None:
        super().__init__()
        source = to_source(x, y)
        if isinstance(source, Records):
            raise ConfigError("the noise scale is measured on examples in memory: give arrays")
        check_counts(batch_size=batch_size, every=every)
        if 2 * batch_size > source.size:
            raise ConfigError(f"two batches of {batch_size} are more than the {source.size} examples")
        self._source, self._batch_size, self._every, self._seed = source, batch_size, every, seed
        self._estimator = Estimator(window)
        self._updates = 0
        self._squares: Any = None

    def estimate(self) -> NoiseEstimate:
        """The current noise scale, with its interval."""
        return self._estimator.estimate()

    def on_train_begin(self, logs: Any = None) -> None:
        """Traces anew: the model may be another."""
        self._squares = tf.function(self._measure, autograph=False, reduce_retracing=True)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Measures at each `every`th update."""
        self._updates += 1
        if self._updates % self._every:
            return
        size = self._batch_size
        random = np.random.default_rng(derive(self._seed, "noise", self._updates))
        drawn = self._source.rows(random.choice(self._source.size, 2 * size, replace=False))
        state = [raw_variable(v) for v in self.model.non_trainable_variables]
        before = [v.numpy() for v in state]
        parts, whole = (float(found.numpy()) for found in self._squares(drawn.examples, drawn.labels))
        for variable, value in zip(state, before, strict=True):  # such as statistics, which only training may move
            variable.assign(value)
        noise = size * parts - 2 * size * whole
        self._estimator.add(noise, whole - noise / (2 * size))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds the value to the logs."""
        if logs is not None:
            found = self.estimate().value
            logs["noise_scale"] = math.nan if found is None else found

    def _measure(self, x: Data, y: Data) -> tuple[Any, Any]:
        """Returns (the sum of both halves' squared mean gradients, the square of the whole's)."""
        variables, size = self.model.trainable_variables, self._batch_size
        gradients = []
        for part in (slice(None, size), slice(size, None)):
            rows = keras.tree.map_structure(lambda array, part=part: array[part], (x, y))
            with tf.GradientTape() as tape:
                loss = self.model.compute_loss(*rows, self.model(rows[0], training=True), None)
            found = tape.gradient(loss, [raw_variable(v) for v in variables])
            gradients.append([tf.convert_to_tensor(g) for g in found if g is not None])
        whole = [(a + b) / 2.0 for a, b in zip(*gradients, strict=True)]
        parts = sum(square_of(one, tf.float32) for one in gradients)
        return parts, square_of(whole, tf.float32)
