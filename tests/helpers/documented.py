"""Documentation as programs: the names that it may use, and how its examples are run.

Python in a page of `docs/`, in the README or in a docstring's `Example:` is run with `names()` at hand, in a folder
that has `mine.py` (`load`, `build` and `train`). All blocks of a page share one namespace, in their order. What takes
long is run smaller (`SMALLER`); `tests/slow` runs it as it stands.
"""

import contextlib
import doctest
import inspect
import io
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tfmb
from tfmb.backend import keras, tf

# What makes a block long, and what it is run with in the default suite.
SMALLER = [(r"max_trials=\d+", "max_trials=2"), (r"\bbudget=\d+", "budget=1"), (r"\bepochs=\d+", "epochs=1")]

MINE = """\
import keras
import numpy as np


def load():
    x = np.random.default_rng(0).normal(size=(240, 20)).astype("float32")
    y = (x[:, :3].sum(axis=1) > 0).astype("int64")
    return (x[:200], y[:200]), (x[200:], y[200:])


def build(hp=None):
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam" if hp is None else None, loss, metrics=["accuracy"])
    return model


def train(model, x, y, optimizer, batch_size, epochs):
    model.compile(keras.optimizers.get(optimizer), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
"""

# What docs/moving.md runs with `tfmb run`, and shows.
PROGRAM = """\
import keras
import numpy as np

x = np.random.default_rng(0).normal(size=(500, 20)).astype("float32")
y = (x[:, :3].sum(axis=1) > 0).astype("int64")

model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2)])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
model.fit(x, y, epochs=3, validation_split=0.1, verbose=0)
model.compile("sgd", model.loss, metrics=["accuracy"])
model.fit(x, y, epochs=2, verbose=0)
print(model.evaluate(x, y, verbose=0))
"""


def names() -> dict[str, Any]:
    """The names that documentation may use: made-up data, a model, and functions that build one.

    - `x` float32 `[240, 20]`, `y` float32 `[240, 1]` of 0 and 1, good as classes and as numbers;
    - `x_train`, `y_train`, `x_test`, `y_test`: the first 200 of them and the rest;
    - `images`: uint8 `[32, 28, 28, 1]`;
    - `build(hp=None)`: a compiled classifier of `x`; `build_model()`: a compiled regression of `y`;
    - `model`: `build()`; `gradients`: one for each of its trainable variables;
    - `np`, `tf`, `keras`, `tfmb`.
    """
    here: dict[str, Any] = {}
    exec(MINE, here)  # the file's own text: what a page imports and what it has at hand are the same
    (x_train, _), (x_test, _) = here["load"]()
    x = np.concatenate([x_train, x_test])
    y = (x[:, :3].sum(axis=1, keepdims=True) > 0).astype("float32")

    def build_model() -> Any:
        model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    model = here["build"]()
    return {
        **{"np": np, "tf": tf, "keras": keras, "tfmb": tfmb, "__name__": "documented"},
        **{"x": x, "y": y, "x_train": x[:200], "y_train": y[:200], "x_test": x[200:], "y_test": y[200:]},
        "images": np.random.default_rng(1).integers(0, 256, (32, 28, 28, 1), np.uint8),
        **{"build": here["build"], "build_model": build_model, "model": model},
        "gradients": [tf.ones_like(tf.convert_to_tensor(variable)) for variable in model.trainable_variables],
    }


@contextlib.contextmanager
def folder_with_mine(folder: Path) -> Iterator[None]:
    """Inside the `with` block, `folder` is the current one, with `program.py`, and `mine.py` to be imported."""
    (folder / "mine.py").write_text(MINE)
    (folder / "program.py").write_text(PROGRAM)
    sys.path.insert(0, str(folder))
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("mine", None)


def smaller(code: str) -> str:
    """The same code with less to do: see `SMALLER`."""
    for pattern, less in SMALLER:
        code = re.sub(pattern, less, code)
    return code


def example_of(thing: Any) -> str:
    """What stands below `Example:` in a docstring; empty where nothing does."""
    _, _, example = (inspect.getdoc(thing) or "").partition("\nExample:\n")
    return textwrap.dedent(example)


def run_example(example: str, here: dict[str, Any]) -> None:
    """Runs `>>>` lines in the namespace `here`; what they answer is compared where the example says it.

    Raises:
        AssertionError: another answer.
    """
    check = doctest.OutputChecker()
    for step in doctest.DocTestParser().get_examples(example):
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            exec(compile(step.source, f"<{step.source.strip()}>", "single"), here)
        if step.want:
            answer = shown.getvalue()
            options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert check.check_output(step.want, answer, options), f"{step.source}gave {answer!r}, not {step.want!r}"
