"""What a notebook shows and keeps, in a real kernel."""

import re
from pathlib import Path

import pytest
from notebooks import notebook_of, run_notebook

START = """
import keras, numpy as np, os, signal, threading
import tfmb

x = np.random.default_rng(0).normal(size=(4000, 20)).astype("float32")
y = (x[:, :3].sum(axis=1) > 0).astype("int64")

def build():
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model

model = build()
"""
FIT = "history = tfmb.fit(model, x, y, batch_size=16, epochs=3)"
INTERRUPTED = """
before = [weight.copy() for weight in model.get_weights()]

class Stop(keras.callbacks.Callback):  # the stop button, pressed in the third epoch
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()

tfmb.fit(model, x, y, epochs=100_000, verbose=0, callbacks=[Stop()])
"""
LEFT = """
moved = all(np.abs(a - b).max() > 0 for a, b in zip(before, model.get_weights()))
print(moved, len(model.history.epoch) >= 2, len(model.history.epoch) == len(model.history.history["loss"]))
"""


TUNE = """
def build(hp):
    hidden = keras.layers.Dense(hp.Choice("units", [4, 8]), "relu")
    model = keras.Sequential([keras.Input((20,)), hidden, keras.layers.Dense(2)])
    model.compile(None, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model

result = tfmb.tune(build, x, y, workers=2, max_trials=4, batch_size=[32, 64], seed=1)
print([trial.fate for trial in result.trials], {trial.worker for trial in result.trials} <= {"worker-0", "worker-1"})
"""


@pytest.mark.process
def test_a_search_with_workers_takes_what_a_cell_defines(tmp_path: Path) -> None:
    _, found = run_notebook(notebook_of(START, TUNE), tmp_path)
    assert "['completed', 'completed', 'completed', 'completed'] True" in found


@pytest.mark.process
def test_a_cell_shows_a_line_an_epoch_and_leaves_what_was_trained_when_it_is_stopped(tmp_path: Path) -> None:
    _, fitted, stopped, left = run_notebook(notebook_of(START, FIT, INTERRUPTED, LEFT, interrupted=(2,)), tmp_path)
    lines = fitted.splitlines()
    assert [line[:10] for line in lines] == ["epoch 1/3 ", "epoch 2/3 ", "epoch 3/3 "]
    assert all(re.search(r"accuracy 0\.\d+  loss 0\.\d+  [\d,]+ examples/s", line) for line in lines)
    assert "\r" not in fitted
    assert stopped.startswith("KeyboardInterrupt")
    assert left == "True True True\n"
