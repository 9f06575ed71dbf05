"""k steps of a run by our loop beside the same by `keras.Model.train_on_batch`, on exactly the same batches."""

from typing import Any

import numpy as np

from tfmb.backend import keras
from tfmb.optimizers import Optimizer
from tfmb.verification.checks import Check, failed, passed
from tfmb.verification.counterpart import in_32_bits
from tfmb.verification.faults import largest_difference
from tfmb.verification.problem import in_precision, without_random_numbers
from tfmb.verification.subject import Subject
from tfmb.verification.trainings import Arrays, batches_of, compiled_for_keras, fit_subject, values_of, why_not_64_bits

__all__ = ["NAME", "check_parity"]

NAME = "parity with model.fit"
_FLOAT64, _FLOAT32, _FIRST_OF_ADAM = 1e-11, 1e-6, 4e-6


def check_parity(subject: Subject) -> Check:
    """Compares weights and statistics after all updates in 64 bits; one update from each state in 32."""
    why = why_not_64_bits(subject)
    with in_precision("float64" if why is None else "float32"):
        return _in_64_bits(subject) if why is None else _in_32_bits(subject, why)


def _in_64_bits(subject: Subject) -> Check:
    model = subject.make_model("float64")
    silenced = without_random_numbers(model)
    what = compiled_for_keras(subject, model, in_32_bits)
    for x, y, weight in batches_of(subject):
        model.train_on_batch(x, y, sample_weight=weight)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    ours = fit_subject(subject, precision="float64", prepare=without_random_numbers, settle=in_32_bits)
    found, expected = values_of(ours.model), values_of(model)
    error = _relative(found, expected)
    about = f"{subject.updates} updates of {subject.batch_size} by {what}, whole batches on one replica, float64"
    about += f", dropout off in {', '.join(silenced)}" if silenced else ""
    if error <= _FLOAT64:
        return passed(NAME, f"{about}: largest difference {error:.1e}, within {_FLOAT64:g}")
    if error <= _FLOAT32:
        detail = f"largest difference {error:.1e}, within {_FLOAT32:g}: something in it is computed in 32 bits"
        return passed(NAME, f"{about}: {detail}")
    return failed(NAME, f"{about}: largest difference {error:.1e}, over {_FLOAT64:g}")


def _in_32_bits(subject: Subject, why: str) -> Check:
    """One update from each state that Keras's loop goes through, with new slots: rounding cannot add up."""
    model = subject.make_model("float32")
    without_random_numbers(model)
    what = compiled_for_keras(subject, model, in_32_bits)
    model.optimizer.build(model.trainable_variables)
    new = [v.numpy() for v in model.optimizer.variables]
    states, expected = [], []
    for x, y, weight in batches_of(subject):
        for variable, value in zip(model.optimizer.variables, new, strict=True):
            variable.assign(value)
        states.append([v.numpy() for v in model.variables])
        model.train_on_batch(x, y, sample_weight=weight)
        expected.append(values_of(model))
    updates = _Updates(states)
    fit_subject(
        subject,
        precision="float32",
        prepare=without_random_numbers,
        settle=updates.of,
        callbacks=[updates],
    )
    error = max(_relative(a, b) for a, b in zip(updates.found, expected, strict=True))
    limit = _FIRST_OF_ADAM if "Adam" in what or "RMSprop" in what else _FLOAT32
    about = f"one update from each of {len(states)} states by {what}, float32 ({why})"
    verdict = f"{about}: largest difference {error:.1e}"
    return (
        passed(NAME, f"{verdict}, within {limit:g}") if error <= limit else failed(NAME, f"{verdict}, over {limit:g}")
    )


def _relative(found: Arrays, expected: Arrays) -> float:
    """The largest difference; of variables with entries beyond 1 relative to their largest entry."""
    scales = [max(1.0, float(np.max(np.abs(value), initial=0.0))) for value in expected]
    pairs = zip(found, expected, scales, strict=True)
    scaled = [(a / scale, b / scale) for a, b, scale in pairs]
    return largest_difference([a for a, _ in scaled], [b for _, b in scaled])


class _Updates(keras.callbacks.Callback):
    """Puts the model into a given state before each update, with new slots, and keeps the result of the update.

    Args:
        states: the values of all variables of the model.
    """

    def __init__(self, states: list[Arrays]) -> None:
        super().__init__()
        self._states = states
        self._optimizer: Any = None
        self.found: list[Arrays] = []

    def of(self, optimizer: Optimizer) -> None:
        """Rounds the optimizer as Keras does, and resets its slots before each update."""
        in_32_bits(optimizer)
        self._optimizer = optimizer

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Sets the state before an update."""
        for variable in self._optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype.as_numpy_dtype))
        for variable, value in zip(self.model.variables, self._states[len(self.found)], strict=True):
            variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keeps the values after an update."""
        self.found.append(values_of(self.model))
