"""A program that runs another one without a network, and ends each of its fits after three updates.

    python shim.py CALLS SCRIPT          as Keras trains it
    tfmb run --strict shim.py CALLS SCRIPT

The file CALLS gets one JSON line for each fit, evaluate and predict of the script, as it ends.
"""

import functools
import inspect
import itertools
import json
import runpy
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import network
import shell_blocks
import weights

UPDATES = 3
# A script that predicts in a loop has shown enough after these calls, and is ended as one that passed.
CALLS = 24


def main() -> None:
    """Runs the script."""
    _, calls, script, *arguments = sys.argv
    network.answer_from_made_up_files()
    import matplotlib

    matplotlib.use("Agg")
    import keras
    import tensorflow_datasets

    keras.utils.set_random_seed(0)
    keras.utils.plot_model = keras.utils.model_to_dot = lambda *_, **__: None
    weights.leave_as_they_are()
    tensorflow_datasets.load = _load_made_up
    numbers, running = itertools.count(), list[str]()
    for name in ("fit", "evaluate", "predict"):
        setattr(keras.Model, name, _noted(name, getattr(keras.Model, name), Path(calls), numbers, running))
    shell_blocks.fetch(Path(script).read_text(), urllib.request.urlretrieve)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def _load_made_up(*arguments: Any, **options: Any) -> Any:
    """What `tensorflow_datasets.load` gives, of made-up rows."""
    import made_up_tfds

    return made_up_tfds.load(*arguments, **options)


def _noted(name: str, of_keras_or_ours: Any, calls: Path, numbers: Iterator[int], running: list[str]) -> Any:
    """A method that trains or reads little, and notes what came of it."""

    @functools.wraps(of_keras_or_ours)
    def call(self: Any, x: Any = None, *arguments: Any, **options: Any) -> Any:
        if name == "fit":
            options = _shorter(x, arguments, options)
            arguments = arguments[:1]
        if running:  # validation within a fit is a part of it
            return of_keras_or_ours(self, x, *arguments, **options)
        if next(numbers) >= CALLS:
            raise SystemExit(0)
        line: dict[str, Any] = {"call": name, "model": type(self).__name__}
        running.append(name)
        try:
            given = of_keras_or_ours(self, x, *arguments, **options)
        except BaseException as error:
            line["error"] = f"{type(error).__name__}: {error}"[:600]
            raise
        else:
            line["gives"] = _numbers(name, given)
            return given
        finally:
            running.pop()
            with calls.open("a") as file:
                file.write(json.dumps(line) + "\n")

    return call


def _shorter(x: Any, arguments: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a fit of three updates, in the order of the rows where fit would shuffle them."""
    import keras

    names = list(inspect.signature(keras.src.backend.tensorflow.trainer.TensorFlowTrainer.fit).parameters)[3:]
    options = {**dict(zip(names, arguments[1:], strict=False)), **options}
    options["epochs"] = options.get("initial_epoch", 0) + 1
    options["steps_per_epoch"] = min(UPDATES, options.get("steps_per_epoch") or UPDATES)
    if options.get("validation_data") is not None or options.get("validation_split"):
        options["validation_steps"] = 1
    options["verbose"] = 0
    options["shuffle"] = False
    return options


def _numbers(name: str, given: Any) -> Any:
    """What a call gave, as JSON takes it."""
    import numpy as np

    if name == "fit":
        history = given if isinstance(given, dict) else getattr(given, "history", {})
        return {key: [_number(value) for value in values] for key, values in dict(history).items()}
    if name == "evaluate":
        values = given.items() if isinstance(given, dict) else enumerate(given if isinstance(given, list) else [given])
        return {str(key): _number(value) for key, value in values}
    import keras

    return [
        [list(np.shape(leaf)), _number(np.mean(np.asarray(leaf, "float64")))]
        for leaf in keras.tree.flatten(given)
        if np.asarray(leaf).dtype.kind in "fiub"
    ]


def _number(value: Any) -> Any:
    import numpy as np

    mean = float(np.mean(np.asarray(value, "float64")))
    return mean if np.isfinite(mean) else str(mean)


if __name__ == "__main__":
    main()
