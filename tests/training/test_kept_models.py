"""A cell that builds a model and trains it may be run again and again: the process keeps nothing of earlier models."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from cases import here_by_name

import tfmb
from tfmb.backend import keras, tf

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = (X[:, :3].sum(axis=1) > 0).astype("int64")


def build() -> Any:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def run_cell(**more: Any) -> "list[weakref.ref[Any]]":
    """Trains a new model; what must not outlive it: itself, its copy on other devices, the optimizer, the steps."""
    model = build()
    callback = keras.callbacks.LambdaCallback()
    tfmb.fit(model, X, Y, batch_size=16, epochs=1, verbose=0, validation_split=0.25, callbacks=[callback], **more)
    placed = getattr(model, "_tfmb_copy", (None, None, model))[-1]
    steps = placed._tfmb_steps[-1]
    return [weakref.ref(thing) for thing in (model, model.history, callback, placed, steps, steps.placed.optimizer)]


class OwnStep(keras.Sequential):
    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


@pytest.mark.compile
def test_nothing_is_kept_of_a_model_with_its_own_step() -> None:
    def cell() -> "weakref.ref[Any]":
        model = OwnStep([keras.Input((8,)), keras.layers.Dense(2)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        tfmb.fit(model, X, Y, batch_size=16, epochs=1, verbose=0)
        return weakref.ref(model)

    kept = [cell() for _ in range(2)]
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


def operations() -> int:
    """How many operations of traced graphs the process holds."""
    gc.collect()
    return sum(type(thing) is tf.Operation for thing in gc.get_objects())


@pytest.mark.compile
@pytest.mark.parametrize(
    "more",
    here_by_name(
        {
            "one device": {},
            "two": {"devices": 2},
            "two of four parts": {"devices": 2, "virtual_replicas": 4},
            "four of four parts": {"devices": 4, "virtual_replicas": 4},
        },
        ["one device"],
    ),
)
def test_a_cell_that_is_run_again_keeps_nothing_of_earlier_models(more: dict[str, Any]) -> None:
    run_cell(**more)
    before = operations()
    kept = [reference for _ in range(3) for reference in run_cell(**more)]
    # Three graphs of some thousand operations each; what is left is Keras's own, of its functional layers.
    assert operations() - before < 100
    assert [reference() for reference in kept] == [None] * len(kept)
