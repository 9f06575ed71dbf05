"""Runs a program's code by one side, in a process of its own or after others, and keeps all that can be seen of it."""

import csv
import gc
import io
import os
import pickle
import re
import shutil
import tempfile
import traceback
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .writing import write

__all__ = ["SIDES", "run_and_keep"]

# keras twice, with weights that are moved by some roundings, with tfmb whole, and with tfmb cut.
SIDES = ("keras", "again", "moved", "whole", "cut")
# How far weights are moved, in parts of them: some roundings of what the precision computes in.
_MOVED = {"float64": 1e-15, "float32": 5e-7, "mixed_bfloat16": 8e-3, "mixed_float16": 1e-3}


def run_and_keep(program: dict[str, Any], side: str, path: str, eagerly: bool = False) -> None:
    """Runs it by a side of `SIDES`; the outcome is then in the file, pickled.

    Args:
        program: see `programs`.
        side: whose `fit` trains.
        path: of the file.
        eagerly: whether Keras runs without tracing, which takes most of the time: never `tfmb.fit`.

    The outcome has the notes in their order, with the weights, the optimizer's state and the files at the end, and
    the error that ended it: its class, its text, where it was raised, and whether a training had begun.
    """
    from tfmb.backend import keras, tf

    for each in (keras.config, tf.debugging):
        each.disable_traceback_filtering()  # which takes a third of the time
    before, folder = Path.cwd(), tempfile.mkdtemp()
    kept = _Kept(program, side, eagerly)
    os.chdir(folder)
    tf.config.run_functions_eagerly(eagerly)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kept.run()
    finally:
        os.chdir(before)
        shutil.rmtree(folder)
        keras.utils.clear_session(free_memory=False)
        gc.collect()
    Path(f"{path}.part").write_bytes(pickle.dumps({"notes": kept.notes, "error": kept.error}))
    Path(f"{path}.part").rename(path)


class _Kept:
    def __init__(self, program: dict[str, Any], side: str, eagerly: bool) -> None:
        self.program, self.side, self._eagerly = program, side, eagerly
        self.notes: list[tuple[str, Any]] = []
        self.error: dict[str, Any] | None = None
        self._fits, self._moved = 0, False

    def run(self) -> None:
        names: dict[str, Any] = {"fit": self._fit, "note": self.note, "__name__": "program"}
        names |= {name: self._scoring(name) for name in ("evaluate", "predict")}
        try:
            exec(compile(write(self.program), "program.py", "exec"), names)
            self._keep_state(names["model"])
        except Exception as error:  # whatever a program raises is what it came to, on either side
            self.error = {
                "class": f"{type(error).__module__}.{type(error).__name__}",
                "text": str(error)[:2000],
                "trace": "".join(traceback.format_exception(error))[-6000:],
                "fits": self._fits,
                "after": len(self.notes),
            }

    def note(self, name: str, value: Any) -> None:
        """What a program calls to keep a value."""
        if hasattr(value, "history"):
            value = {"epochs": value.epoch, **value.history}
        value = _plain(value)
        self.notes.append((name, _without_losses_of_outputs(value) if self._eagerly else value))

    def _fit(self, model: Any, *data: Any, **given: Any) -> Any:
        self._fits += 1
        if self.side in ("keras", "again", "moved"):
            if self.side == "moved" and not self._moved:
                self._moved = True
                given = self._moving(model, given)
            return model.fit(*data, **given)
        import tfmb
        from tfmb.backend import tf

        if self.side == "cut":
            given["virtual_replicas"] = self.program["cut"]
        # With a seed, for none draws one from Python's generator, and the seeds of layers that are made later with it.
        tf.config.run_functions_eagerly(False)
        history = tfmb.fit(model, *data, jit_compile=False, seed=self.program["seed"], **given)
        tf.config.run_functions_eagerly(self._eagerly)
        return history

    def _scoring(self, name: str) -> Any:
        """Keras's or our `evaluate` or `predict`."""

        def call(model: Any, *data: Any, **given: Any) -> Any:
            if self.side in ("keras", "again", "moved"):
                return getattr(model, name)(*data, **given)
            import tfmb
            from tfmb.backend import tf

            tf.config.run_functions_eagerly(False)
            try:
                return getattr(tfmb, name)(model, *data, **given)
            finally:
                tf.config.run_functions_eagerly(self._eagerly)

        return call

    def _moving(self, model: Any, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a fit that begins with moved weights; one that builds the model moves them then."""
        if model.built:
            self._move(model)
            return given
        from tfmb.backend import keras

        move = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: self._move(model))
        return {**given, "callbacks": [*given.get("callbacks", []), move]}

    def _move(self, model: Any) -> None:
        """Weights that differ by roundings: what becomes of that is what equal programs may differ by."""
        random, size = np.random.default_rng(1), _MOVED[self.program["precision"]]
        for variable in model.trainable_variables:
            value, signs = np.asarray(variable), random.choice([-1.0, 1.0], variable.shape)
            # What is 0 moves too: Adam's first steps along a gradient of roundings are whole ones.
            moved = np.where(value == 0, 1e-3 * size * signs, value * (1 + size * signs))
            variable.assign(moved.astype(value.dtype))

    def _keep_state(self, model: Any) -> None:
        self.note("state", {f"{i} {v.path}": v for i, v in enumerate(model.variables)})
        if model.optimizer is not None:
            self.note("optimizer", {f"{i} {v.name}": v for i, v in enumerate(model.optimizer.variables)})
        for path in sorted(Path().rglob("*")):
            if path.is_file():
                self.note(f"file {path}", _contents(path))


def _without_losses_of_outputs(value: Any) -> Any:
    """Keras weighs them by the size of the batch where it runs eagerly, and all batches alike where it traces."""
    if isinstance(value, dict):
        left = {key: each for key, each in value.items() if not re.fullmatch(r"\w+_loss", key) or key == "val_loss"}
        return {key: _without_losses_of_outputs(each) for key, each in left.items()}
    return [_without_losses_of_outputs(each) for each in value] if isinstance(value, list) else value


def _contents(path: Path) -> Any:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            weights = _arrays(io.BytesIO(archive.read("model.weights.h5")))
            config = re.sub(r'"shared_object_id": \d+', "", archive.read("config.json").decode())  # places in memory
            return {"config": config, **weights}
    if path.suffix == ".h5":
        return _arrays(path)
    if path.suffix == ".csv":
        with path.open() as lines:
            return [{key: _number(text) for key, text in row.items()} for row in csv.DictReader(lines)]
    return None


def _arrays(file: Any) -> dict[str, Any]:
    import h5py

    found = {}
    with h5py.File(file) as opened:
        opened.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None)
    return found


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _plain(value: Any) -> Any:
    """Dicts, lists and arrays of numbers in 64 bits."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, str):
        return value
    array = np.asarray(value)
    return array.astype("float64") if array.dtype.kind in "fiub" or "float" in str(array.dtype) else array.tolist()
