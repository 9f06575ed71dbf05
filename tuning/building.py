"""One call of a user's `build(hp)`: what it asks for, and names that do not depend on how often it was called."""

import collections
import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

from keras.src.backend.common import global_state
from keras.src.random import seed_generator

from tfmb.backend import keras
from tfmb.seeds import derive

from .quiet import keras_tuner

__all__ = ["FAILED_TRIAL", "Asked", "TooLargeError", "build_model", "own_generator", "refuse_large", "words_of"]


class TooLargeError(Exception):
    """A model has more parameters than the search allows."""


# What says all by itself: a user's own `FailedTrialError` too.
FAILED_TRIAL = (TooLargeError, keras_tuner.errors.FailedTrialError)
_MOST_WORDS = 500
_STACK = ('File "', "Detected at node", "Graph execution error", "Stack trace", "Node: ", "[[")


def words_of(error: Exception) -> str:
    """Returns an error in one line, without the stack of the graph that TensorFlow puts before its reason."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = " ".join(line for line in lines if line and not line.startswith(_STACK))
    return f"{type(error).__name__}: {' '.join(said.split())}".removesuffix(": ")[:_MOST_WORDS]


class Asked(keras_tuner.HyperParameters):
    """Hyper-parameters with given values; what is asked for besides is drawn.

    Args:
        values: by name.
        seed: decides what is drawn, with the name; None takes the default.
    """

    def __init__(self, values: dict[str, Any], seed: int | None = None) -> None:
        super().__init__()
        self.values = dict(values)
        self._seed = seed

    @property
    def names(self) -> list[str]:
        """The names that were asked for and are active, in their order."""
        return list(dict.fromkeys(entry.name for entry in self.space if self.is_active(entry)))

    def _register(self, hyperparameter: Any, overwrite: bool = False) -> Any:
        name = hyperparameter.name
        if self._seed is not None and name not in self.values and self.is_active(hyperparameter):
            self.values[name] = hyperparameter.random_sample(derive(self._seed, "choice", name))
        return super()._register(hyperparameter, overwrite)


def build_model(build: Callable[[Any], Any], hp: Asked) -> Any:
    """Calls `build(hp)`. A metric by its class is `auc` in every trial, not `auc_1` in the second."""
    with _first_names():
        return build(hp)


def refuse_large(build: Callable[[Any], Any], hp: Asked, most: int) -> None:
    """Builds a model without its weights, and counts them.

    Raises:
        TooLargeError: they are more than `most`.
    """
    with keras.StatelessScope():
        size = build_model(build, hp).count_params()
    if size > most:
        raise TooLargeError(f"the model has {size:,} parameters, and max_model_size is {most:,}")


@contextlib.contextmanager
def own_generator(seed: int) -> Iterator[None]:
    """Gives Keras a generator of its own in place of Python's, which other threads draw from, such as Dask's."""
    before = seed_generator.python_random
    seed_generator.python_random = random.Random(seed)
    try:
        yield
    finally:
        seed_generator.python_random = before


@contextlib.contextmanager
def _first_names() -> Iterator[None]:
    key = "object_name_uids"  # Keras's counts of the names that it gave
    before = global_state.get_global_attribute(key)
    global_state.set_global_attribute(key, collections.defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(key, before)
