"""`Dropout` whose masks do not depend on the number of replicas or on how a batch is cut into parts.

Example:
    >>> model = keras.Sequential([keras.Input((20,)), tfmb.layers.Dropout(0.25), keras.layers.Dense(2)])
"""

import contextlib
import math
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfmb.backend import keras, tf
from tfmb.errors import ConfigError
from tfmb.seeds import derive
from tfmb.types import Layer, Tensor

__all__ = ["Dropout", "PartOfBatch", "mask_keys", "part_of_batch"]

# A layer may be called several times for one batch; each of so many calls has a key of its own.
_CALLS = 8


@dataclass(frozen=True, kw_only=True)
class PartOfBatch:
    """The facts by which a layer takes its own rows of a mask that belongs to the whole batch.

    Attributes:
        keys: int64 tensor or variable `[layers, _CALLS]`: see `mask_keys`.
        update: int64 scalar tensor, the number of updates made so far.
        start: int64 scalar tensor, the number of the part's first row in the batch.
        order: layer's id -> its number among the model's layers of this kind, the same in every process.
        xla_on_cpu: whether XLA compiles the work for a CPU.

    Example:
        >>> layer = tfmb.layers.Dropout(0.5)
        >>> keys = tf.constant(tfmb.layers.mask_keys(seed=0, layers=1))
        >>> zero = tf.constant(0, tf.int64)
        >>> part = tfmb.layers.PartOfBatch(keys=keys, update=zero, start=zero, order={id(layer): 0})
    """

    keys: Any
    update: Any
    start: Any
    order: dict[int, int]
    xla_on_cpu: bool = False
    _calls: dict[int, int] = field(default_factory=dict)

    def key(self, layer: Layer, layer_seed: int | None) -> tuple[Any, Any]:
        """Returns the seed of a layer's next mask: a function of (seed, layer, call, update)."""
        call = self._calls.get(id(layer), 0)
        self._calls[id(layer)] = call + 1
        number = self.order.get(id(layer), 0)
        if layer_seed is not None:
            return tf.constant(derive(layer_seed, "mask", number, call), tf.int64), self.update
        return tf.convert_to_tensor(self.keys)[number, call % _CALLS] + call // _CALLS, self.update


def mask_keys(seed: int, layers: int) -> np.ndarray:
    """Returns the keys of each layer and call, by a run's seed: data of a traced function.

    Args:
        seed: the run's.
        layers: the number of layers of this kind in the model.

    Returns:
        int64 `[at least 1, 8]`: a layer may be called eight times for a batch before keys are derived from these.

    Example:
        >>> tfmb.layers.mask_keys(seed=0, layers=3).shape
        (3, 8)
    """
    keys = [[derive(seed, "mask", layer, call) for call in range(_CALLS)] for layer in range(max(layers, 1))]
    return np.asarray(keys, np.int64)


_here = threading.local()  # replicas are traced in threads of their own


@contextlib.contextmanager
def part_of_batch(part: PartOfBatch) -> Iterator[None]:
    """Makes `Dropout` draw the masks of that part inside the `with` block.

    Args:
        part: which rows of the batch, and the keys of its masks.

    Example:
        >>> layer, rows = tfmb.layers.Dropout(0.5), np.ones((4, 8), "float32")
        >>> keys = tf.constant(tfmb.layers.mask_keys(seed=0, layers=1))
        >>> def masked(start, rows):
        ...     start, zero = tf.constant(start, tf.int64), tf.constant(0, tf.int64)
        ...     part = tfmb.layers.PartOfBatch(keys=keys, update=zero, start=start, order={id(layer): 0})
        ...     with tfmb.layers.part_of_batch(part):
        ...         return layer(rows, training=True).numpy()
        >>> whole, second_half = masked(0, rows), masked(2, rows[2:])
        >>> bool((whole[2:] == second_half).all())
        True
    """
    before = getattr(_here, "part", None)
    _here.part = part
    try:
        yield
    finally:
        _here.part = before


@keras.saving.register_keras_serializable(package="tfmb")
class Dropout(keras.layers.Dropout):
    """`keras.layers.Dropout` with the same masks on any number of replicas, and for any cut into micro-batches.

    In our loop the mask of a whole batch is a function of (seed, update, layer); each part of the batch draws its own
    rows of it. In any other loop it is Keras's layer. Same arguments, shapes and dtypes.

    Args:
        rate: the share of inputs set to 0 in training, in [0, 1); the others are divided by 1 - rate.
        noise_shape: the shape of the mask, to share it along some axes; the first entry, the batch's, must be None.
        seed: None for the run's own.
        **kwargs: as every Keras layer's (`name`, `dtype`).

    Example:
        >>> ones = np.ones((2, 4), "float32")
        >>> bool((tfmb.layers.Dropout(0.5)(ones, training=False) == ones).numpy().all())
        True
        >>> sorted(set(tfmb.layers.Dropout(0.5, seed=1)(np.ones(1000), training=True).numpy().tolist()))
        [0.0, 2.0]
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Returns `inputs`, with some entries set to 0 in training."""
        part = getattr(_here, "part", None)
        if part is None or not training or not self.rate:
            return super().call(inputs, training=training)
        if self.rate == 1:
            return tf.zeros_like(inputs)
        shape, key = self._mask_shape(inputs), part.key(self, self.seed)

        def mask() -> Any:
            return _row_bits(key, part.start, shape) >= tf.constant(math.floor(self.rate * 2**32), tf.uint32)

        # What a branch gives XLA writes down; it would else look a number's bits up for each weight that it moves.
        kept = tf.cond(part.update >= 0, mask, lambda: tf.zeros(shape, tf.bool)) if part.xla_on_cpu else mask()
        return tf.where(kept, inputs / tf.cast(1.0 - self.rate, inputs.dtype), tf.zeros_like(inputs))

    def save_own_variables(self, store: Any) -> None:
        """Saves what Keras saves, and says that the file needs tfmb where the architecture is in it."""
        super().save_own_variables(store)
        warnings.warn(
            f"{self.name} is a tfmb.layers.Dropout: a .keras file that holds it loads only where tfmb is imported "
            "(keras.layers.Dropout loads anywhere)",
            stacklevel=2,
        )

    def _mask_shape(self, inputs: Any) -> Any:
        dynamic = tf.shape(inputs)
        if self.noise_shape is None:
            return dynamic
        if self.noise_shape[0] is not None:
            raise ConfigError(f"{self.name}: the first entry of noise_shape={self.noise_shape} must be None, the batch")
        return tf.stack([dynamic[i] if size is None else size for i, size in enumerate(self.noise_shape)])


def _row_bits(key: tuple[Any, Any], start: Tensor, shape: Any) -> Any:
    """Random uint32 of `shape`, a function of (key, number of the row): rows from `start` on.

    Philox is a function of (key, counter), four words a count, so any row can be drawn without those before it.
    """
    seed, update = key
    width = tf.reduce_prod(shape[1:])
    blocks = (width + 3) // 4
    key_word, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=tf.stack([seed, tf.cast(update, tf.int64)]))
    offset = tf.cast(tf.cast(start, tf.int64) * tf.cast(blocks, tf.int64), tf.uint64)
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.stack([shape[0], 4 * blocks]),
        key=key_word,
        counter=tf.stack([counter[0] + offset, counter[1]]),
        alg=1,  # Philox, on every device
        dtype=tf.uint32,
    )
    return tf.reshape(words[:, :width], shape)
