"""Counts a model's memory without an example. Nothing is allocated: the model may be one that does not fit."""

import math
from typing import Any
from unittest import mock

from tfmb.environment.console import start_tensorflow
from tfmb.jobs.config import ProblemConfig
from tfmb.types import Variable

__all__ = ["count_bytes", "model_bytes"]


def model_bytes(build: Any, optimizer: Any = None) -> int:
    """Bytes of a model's variables, of one gradient for each trainable one, and of the optimizer's slots.

    Args:
        build: a function without arguments that gives a Keras model, compiled or not.
        optimizer: as in `tfmb.fit`; None for what the model is compiled with, else Adam.
    """
    from tfmb.backend import keras

    compiled_with: list[Any] = []

    def compile_nothing(_: Any, optimizer: Any = "rmsprop", *__: Any, **___: Any) -> None:
        compiled_with.append(optimizer)

    # Keras makes no values in such a scope, which the variables of an optimizer and of metrics would need.
    with mock.patch.object(keras.Model, "compile", compile_nothing), keras.StatelessScope(initialize_variables=False):
        model = build()
    known = [*compiled_with, "adam"][0] if optimizer is None else optimizer
    trained = sum(map(_bytes_of, model.trainable_variables))
    return sum(map(_bytes_of, model.variables)) + trained * (1 + _slots_of(known))


def _bytes_of(variable: Variable) -> int:
    from tfmb.backend import tf

    return math.prod(variable.shape) * int(tf.as_dtype(variable.dtype).size)


def _slots_of(optimizer: Any) -> int:
    """Returns the number of values that an optimizer keeps for each weight."""
    from tfmb.advice.short_runs import fresh
    from tfmb.backend import keras
    from tfmb.optimizers import interop

    made, one = interop.get(fresh(optimizer)), keras.Variable([[0.0, 0.0, 0.0]])
    made.build([one])
    return sum(tuple(variable.shape) == (1, 3) for variable in made.variables)


def count_bytes(config: dict[str, Any]) -> int:
    """The bytes of a problem's model, in a process that has not started TensorFlow."""
    start_tensorflow()
    from tfmb.advice.jobs import problem_of

    problem, _ = problem_of(ProblemConfig(**config))
    return model_bytes(problem.build, problem.optimizer)
