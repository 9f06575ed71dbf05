"""A small training loop, right or with one fault planted in it, and the same by other means."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from tfmb.backend import keras, tf

ROWS = 40
X = np.random.default_rng(0).normal(size=(ROWS, 5))
Y = np.random.default_rng(1).integers(0, 3, ROWS)


def build() -> Any:
    """A smooth model with dropout, which a check turns off, and a regulariser."""
    layers = keras.layers
    hidden = layers.Dense(6, "tanh", kernel_regularizer=keras.regularizers.L2(0.02))
    model = keras.Sequential([keras.Input((5,)), hidden, layers.Dropout(0.5), layers.Dense(3)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def data() -> Any:
    """As `--dataset` calls it."""
    return X, Y


def build_plain() -> Any:
    """A model without a regulariser, whose gradient is all data's."""
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(6, "tanh"), keras.layers.Dense(3)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def loop(fault: str = "") -> Callable[..., Any]:
    """A loop by hand that can do all that is checked on one device; `fault` is planted in it."""

    def train(
        model: Any, x: Any, y: Any, optimizer: Any, batch_size: int, epochs: int, micro_batches: int,
        global_clipnorm: Any, ema_momentum: Any, schedule: Any,
    ) -> None:  # fmt: skip
        rule = _Rule(optimizer, corrected=fault != "no bias correction")
        variables = model.trainable_variables
        averages = [tf.zeros_like(v) for v in variables]
        micro_steps = averaged = 0
        per_part = "per micro-batch"
        for _ in range(epochs):
            for start in range(0, len(x), batch_size):
                size = min(batch_size, len(x) - start)
                if size < batch_size and fault == "dropped tail":
                    continue
                sums = [tf.zeros_like(v) for v in variables]
                edges = [start + size * part // micro_batches for part in range(micro_batches + 1)]
                for number, (a, b) in enumerate(itertools.pairwise(edges)):
                    if a < b:
                        parts = _sums(model, x[a:b], y[a:b])
                        if fault == "clip before reduce" and global_clipnorm is not None:
                            clipped, _ = tf.clip_by_global_norm([g / (b - a) for g in parts], global_clipnorm)
                            parts = [g * (b - a) for g in clipped]
                        sums = [s + g for s, g in zip(sums, parts, strict=True)]
                    micro_steps += 1
                    if number < micro_batches - 1 and fault == f"EMA {per_part}":
                        averaged += 1
                        averages = _averaged(averages, variables, ema_momentum or 0.0, averaged)
                gradients = sums if fault == "missing 1/b" else [s / size for s in sums]
                own = _own_gradients(model)
                gradients = [g + r for g, r in zip(gradients, own, strict=True)]
                if global_clipnorm is not None and fault != "clip before reduce":
                    gradients, _ = tf.clip_by_global_norm(gradients, global_clipnorm)
                counted = micro_steps - 1 if fault == f"schedule {per_part}" else rule.made
                rule.apply(gradients, variables, None if schedule is None else schedule(counted))
                averaged += 1
                averages = _averaged(averages, variables, ema_momentum or 0.0, averaged)
        if ema_momentum is not None:
            for variable, average in zip(variables, averages, strict=True):
                variable.assign(average)

    return train


class _Rule:
    """SGD, momentum and Adam by hand."""

    def __init__(self, optimizer: Any, corrected: bool) -> None:
        self._config, self._corrected = optimizer["config"], corrected
        self._adam = optimizer["class_name"] == "adam"
        self._slots: dict[int, Any] = {}
        self.made = 0

    def apply(self, gradients: Any, variables: Any, rate: Any) -> None:
        self.made += 1
        rate = self._config["learning_rate"] if rate is None else rate
        for i, (g, v) in enumerate(zip(gradients, variables, strict=True)):
            v.assign_sub(self._adam_step(i, g, rate) if self._adam else self._momentum_step(i, g, rate))

    def _momentum_step(self, i: int, g: Any, rate: Any) -> Any:
        self._slots[i] = self._config.get("momentum", 0.0) * self._slots.get(i, 0.0) + g
        return rate * self._slots[i]

    def _adam_step(self, i: int, g: Any, rate: Any) -> Any:
        b1, b2 = self._config["beta_1"], self._config["beta_2"]
        m, v = self._slots.get(i, (0.0, 0.0))
        self._slots[i] = m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        c1, c2 = (1 - b1**self.made, 1 - b2**self.made) if self._corrected else (1.0, 1.0)
        return rate * (m / c1) / (tf.sqrt(v / c2) + self._config["epsilon"])


def _sums(model: Any, x: Any, y: Any) -> list[Any]:
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(y, model(x, training=True), from_logits=True)
        total = tf.reduce_sum(losses)
    return tape.gradient(total, [v.value for v in model.trainable_variables])


def _own_gradients(model: Any) -> list[Any]:
    if not model.losses:
        return [tf.zeros_like(v) for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        own = tf.add_n(model.losses)
    return tape.gradient(own, [v.value for v in model.trainable_variables], unconnected_gradients="zero")


def _averaged(averages: Any, variables: Any, momentum: float, count: int) -> list[Any]:
    momentum = momentum if count > 1 else 0.0
    return [momentum * a + (1 - momentum) * v.value for a, v in zip(averages, variables, strict=True)]


def keras_fit(
    model: Any, x: Any, y: Any, optimizer: Any, batch_size: int, epochs: int, shuffle: bool,
    micro_batches: int, global_clipnorm: Any, ema_momentum: Any, schedule: Any,
) -> None:  # fmt: skip
    """`fit` with its own gradient accumulation, clipping and averaging."""
    config = keras.optimizers.get(optimizer).get_config()
    config |= {"global_clipnorm": global_clipnorm, "use_ema": ema_momentum is not None}
    config |= {} if ema_momentum is None else {"ema_momentum": ema_momentum}
    config |= {} if schedule is None else {"learning_rate": schedule}
    config |= {} if micro_batches == 1 else {"gradient_accumulation_steps": micro_batches}
    made = type(keras.optimizers.get(optimizer))(**config)
    model.compile(made, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    size = batch_size // micro_batches
    model.fit(x, y, batch_size=size, epochs=epochs, shuffle=shuffle, verbose=0)


def keras_fit_on_replicas(
    build_model: Any, x: Any, y: Any, optimizer: Any, batch_size: int, epochs: int, replicas: int, global_clipnorm: Any
) -> Any:
    """`fit` under a MirroredStrategy."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")][:replicas]
    strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        model = build_model()
        made = keras.optimizers.get(optimizer)
        made.global_clipnorm = global_clipnorm
        model.compile(made, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    return model
