"""A run, a stopped run, a search and an export of a tiny model, as a version of tfmb writes them.

python tests/helpers/kept_files.py FOLDER      # with the version that is to be kept; a folder that does not exist
"""

import contextlib
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

__all__ = ["X", "Y", "build", "fit", "make", "search"]

X = np.random.default_rng(0).normal(size=(26, 4)).astype("float32")
Y = (X.sum(1) > 0).astype("int64")
EPOCHS, STOPPED = 4, 9  # batches, of which each epoch has 4


def build(hp: Any = None) -> Any:
    """A model with statistics, masks of ours, and an optimizer with slots and averages."""
    import tfmb
    from tfmb.backend import keras

    layers, init = keras.layers, keras.initializers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, "relu", kernel_initializer=init.GlorotUniform(1)),
            layers.BatchNormalization(),
            tfmb.layers.Dropout(0.3),
            layers.Dense(2, kernel_initializer=init.GlorotUniform(2)),
        ],
        name="kept",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = None if hp is not None else keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def fit(run_dir: Path, model: Any, callbacks: Any = (), **more: Any) -> Any:
    """A training of it, or one that goes on."""
    import tfmb

    given: dict[str, Any] = {"batch_size": 8, "epochs": EPOCHS, "seed": 3, "verbose": 0, "checkpoint_every": 3}
    given |= {"run_dir": run_dir, "callbacks": list(callbacks), "validation_data": (X[:5], Y[:5])}
    return tfmb.fit(model, X, Y, resume=True, **given, **more)


def search(run_dir: Path, max_trials: int) -> Any:
    """A search, or one that goes on."""
    import tfmb

    given: dict[str, Any] = {"batch_size": [4, 8], "learning_rate": (0.001, 0.1), "oracle": "random", "seed": 0}
    return tfmb.tune(build, X, Y, max_trials=max_trials, epochs=1, run_dir=run_dir, **given)


def make(folder: Path) -> None:
    """Writes all of it."""
    import tfmb
    from tfmb.errors import PreemptedError
    from tfmb.training.checkpoint.checkpointer import Checkpointer

    folder.mkdir(parents=True)
    warnings.simplefilter("ignore")
    history = fit(folder / "finished", build())
    tfmb.export(history.model, folder / "export")
    visit = Checkpointer.visit

    def visit_and_stop(keeper: Any, position: Any) -> None:
        keeper.stop = lambda: "stopped" if position.drawn == STOPPED else None
        visit(keeper, position)

    one_a_call = mock.patch.object(Checkpointer, "most", return_value=1)
    stopping = mock.patch.object(Checkpointer, "visit", visit_and_stop)
    with one_a_call, stopping, contextlib.suppress(PreemptedError):
        fit(folder / "stopped", build())
    search(folder / "search", 2)
    for name in ("tensorboard", "report.html", "trials", "timings.jsonl"):
        for path in folder.rglob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
