"""`tfmb.fit`."""

import os
from collections.abc import Callable
from typing import Any

import tfmb
from benchmarks.peers import LEARNING_RATE, MEAN, STD, Work, images
from tfmb.backend import keras
from tfmb.data.source import Normalization
from tfmb.runs.numerics import pin_threads_and_ops
from tfmb.training.execution import jit_trial


def make(
    work: Work, deterministic: bool = False, precision: str | None = None, replicas: int | None = None, **execution: Any
) -> Callable[[], None]:
    """See `benchmarks.peers`; `deterministic` as `tfmb train --deterministic`; `precision` overrides the work's."""
    if replicas is not None:
        tfmb.configure_replicas(replicas)
    if deterministic:
        pin_threads_and_ops(len(os.sched_getaffinity(0)))
    if (precision := precision or work.precision) != "float32":
        keras.config.set_dtype_policy(f"mixed_{precision}")
    x, y = images(work)
    bare = tfmb.models.MODELS[work.model]((28, 28, 1), 10, seed=0)
    model = tfmb.models.with_preprocessing(bare, (28, 28, 1), Normalization(mean=MEAN, std=STD))
    optimizer = tfmb.optimizers.Adam(LEARNING_RATE)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    # As before a long training, whatever this one takes.
    jit_trial._WORTH_SECONDS, jit_trial._WORTH_UPDATES = 0.0, 1

    def epoch() -> None:
        tfmb.fit(
            model,
            x,
            y,
            batch_size=work.batch_size,
            optimizer=optimizer,
            loss=loss,
            devices=replicas,
            seed=0,
            verbose=0,
            **execution,
        )

    return epoch
