"""What a search hands to its workers: settings as JSON, arrays as files, and the user's code as `by_value` says.

No file has a pickle: what a worker reads from one is numbers.
"""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfmb.backend import keras
from tfmb.data.source import Source
from tfmb.distribution.strategy import make_local_strategy
from tfmb.errors import ConfigError, DataError
from tfmb.types import Strategy

from .budget import Budget
from .by_value import pack_function, pack_value, unpack
from .space import Space
from .trial import SearchTask

__all__ = ["FOLDER", "from_json", "pack_task", "refuse_gang", "remove", "to_json", "unpack_task"]

FOLDER = "handover"  # in the search's directory, while it runs
_PARTS = ("examples", "labels", "sample_weight")


def to_json(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass, for JSON; a tuple, which is a range, stays one.

    Raises:
        ConfigError: a value that JSON does not know.
    """
    return {f.name: _packed(f.name, getattr(settings, f.name)) for f in dataclasses.fields(settings) if f.init}


def from_json(kind: type, found: Any) -> Any:
    """What `to_json` made, as the dataclass `kind`.

    Raises:
        ConfigError: entries that it does not have or that are missing, or values that make no sense.
    """
    names = {field.name for field in dataclasses.fields(kind) if field.init}
    if not isinstance(found, dict) or set(found) != names:
        wrong = sorted(names ^ set(found)) if isinstance(found, dict) else [type(found).__name__]
        raise ConfigError(f"{kind.__name__} is not made of {', '.join(map(str, wrong))}")
    return kind(**{name: _unpacked(value) for name, value in found.items()})


def refuse_gang(strategy: Strategy) -> None:
    """Raises a `ConfigError` for the strategy of several workers: those of a search train each a trial of its own."""
    if strategy == "multi-worker":
        raise ConfigError(
            "strategy 'multi-worker' splits one training, workers=N of a search splits the trials: choose one"
        )


def pack_task(task: SearchTask, strategy: Strategy, devices: int | None, folder: Path) -> dict[str, Any]:
    """Writes a task's arrays; returns what a worker makes the task of.

    Args:
        task: what all trials share; its strategy is not handed over.
        strategy: the name of one.
        devices: as in `make_strategy`.
        folder: of the search.

    Raises:
        ConfigError: a part that cannot be handed over.
        OSError: the arrays cannot be written.
    """
    if not isinstance(strategy, str):
        raise ConfigError(f"workers make strategies of their own: give strategy by name, not a {_kind(strategy)}")
    told = {
        "build": pack_function(task.build, "build"),
        "loss": _packed_keras("loss", task.loss),
        "metrics": _packed_keras("metrics", task.metrics),
        "budget": to_json(task.budget),
        "space": to_json(task.space),
        "strategy": strategy,
        "devices": devices,
        "seed": task.seed,
        "executions": task.executions,
    }
    remove(folder)
    (folder / FOLDER).mkdir(parents=True)
    for name, source in (("train", task.train), ("validation", task.validation)):
        parts = {part: _write(getattr(source, part), folder / FOLDER, f"{name}-{part}") for part in _PARTS}
        about = {"num_classes": source.num_classes, "name": source.name, "fingerprint": source.fingerprint}
        told[name] = {**about, **parts}
    return told


def unpack_task(told: dict[str, Any], folder: Path) -> SearchTask:
    """The task of `pack_task`, in a worker; its arrays stay in their files until they are used.

    Raises:
        ConfigError: the user's code cannot be made anew here.
        DataError: the arrays are missing or damaged.
    """
    sources = {}
    for name in ("train", "validation"):
        about = dict(told[name])
        parts = {part: _read(about.pop(part), folder / FOLDER) for part in _PARTS}
        sources[name] = Source(**parts, **about)
    return SearchTask(
        build=unpack(told["build"], "build"),
        loss=_unpacked_keras(told["loss"], "loss"),
        metrics=_unpacked_keras(told["metrics"], "metrics"),
        budget=from_json(Budget, told["budget"]),
        space=from_json(Space, told["space"]),
        strategy=make_local_strategy(told["strategy"], told["devices"], "a search"),
        seed=told["seed"],
        executions=told["executions"],
        **sources,
    )


def remove(folder: Path) -> None:
    """Removes the arrays of a search."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _packed(name: str, value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {type(value).__name__: to_json(value)}
    if isinstance(value, tuple):
        return {"tuple": [_packed(name, one) for one in value]}
    if isinstance(value, list):
        return [_packed(name, one) for one in value]
    if value is None or isinstance(value, (bool, str)) or (isinstance(value, (int, float)) and math.isfinite(value)):
        return value
    raise ConfigError(f"{name}={value!r} cannot be handed to workers: give numbers or text")


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(one) for one in value]
    if isinstance(value, dict):
        kind, inner = next(iter(value.items()), (None, None))
        if len(value) == 1 and kind == "tuple" and isinstance(inner, list):
            return tuple(_unpacked(one) for one in inner)
        if len(value) == 1 and kind == "Space":
            return from_json(Space, inner)
        raise ConfigError(f"an entry {kind!r} is nothing that is handed to workers")
    return value


def _packed_keras(name: str, value: Any) -> dict[str, Any]:
    """A loss or metrics as Keras writes them where it can read them again, else by value."""
    try:
        found = {"keras": json.loads(json.dumps(keras.saving.serialize_keras_object(value)))}
        _unpacked_keras(found, name)
    except Exception:  # whatever Keras, or the user's own object, raises
        return pack_value(value, name)
    return found


def _unpacked_keras(found: dict[str, Any], name: str) -> Any:
    if "keras" in found:
        return keras.saving.deserialize_keras_object(found["keras"], safe_mode=True)
    return unpack(found, name)


def _write(tree: Any, folder: Path, name: str) -> Any:
    """Writes the arrays of a structure; returns it with their files in their places."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        if not all(isinstance(key, str) for key in tree):
            raise ConfigError(f"arrays in a dict need text as keys, to be handed to workers: {list(tree)[:3]}")
        return {
            "dict": {key: _write(one, folder, f"{name}-{number}") for number, (key, one) in enumerate(tree.items())}
        }
    if isinstance(tree, (list, tuple)):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_write(one, folder, f"{name}-{number}") for number, one in enumerate(tree)]}
    np.save(folder / f"{name}.npy", tree, allow_pickle=False)
    return {"file": f"{name}.npy", "shape": list(tree.shape), "dtype": tree.dtype.str}


def _read(found: Any, folder: Path) -> Any:
    if found is None:
        return None
    make: dict[str, Callable[[Any], Any]] = {
        "dict": lambda inner: {key: _read(one, folder) for key, one in inner.items()},
        "list": lambda inner: [_read(one, folder) for one in inner],
        "tuple": lambda inner: tuple(_read(one, folder) for one in inner),
    }
    for kind in make.keys() & found.keys():
        return make[kind](found[kind])
    path = folder / Path(found["file"]).name
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): start the search again") from error
    if [list(array.shape), array.dtype.str] != [found["shape"], found["dtype"]]:
        raise DataError(f"{path} is not what the search wrote: start it again")
    return array


def _kind(value: Any) -> str:
    return type(value).__name__
