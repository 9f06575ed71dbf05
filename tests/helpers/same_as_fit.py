"""Trains twice from the same start, with `keras.Model.fit` and with `tfmb.fit`, and compares all that comes out."""

from collections.abc import Callable
from typing import Any

import numpy as np

import tfmb
from tfmb.backend import keras
from tfmb.training.input.data_adapter import batched_kind

__all__ = ["Fit", "assert_same", "by_keras", "by_tfmb"]

Fit = Callable[..., Any]
_GIVEN = {"batch_size": 5, "shuffle": False, "verbose": 0}


def by_keras(model: Any, *data: Any, **given: Any) -> Any:
    """`keras.Model.fit`."""
    return model.fit(*data, **_of(data, given))


def by_tfmb(model: Any, *data: Any, **given: Any) -> Any:
    """`tfmb.fit`."""
    return tfmb.fit(model, *data, **_of(data, given))


def assert_same(program: Callable[[Fit], tuple[Any, list[Any]]], atol: float = 1e-11) -> Any:
    """Runs a program of trainings with both; weights and logs must agree.

    Args:
        program: trains with the function it is given, and returns the model and the Histories in their order.
        atol: how far weights and logs may be apart.

    Returns:
        The model that was trained with `tfmb.fit`.
    """
    found = []
    for fit in (by_keras, by_tfmb):
        keras.utils.set_random_seed(0)
        model, histories = program(fit)
        found.append((model.get_weights(), [history.history for history in histories], model))
    (weights, logs, _), (our_weights, our_logs, ours) = found
    assert [list(each) for each in our_logs] == [list(each) for each in logs]
    for each, our_each in zip(logs, our_logs, strict=True):
        for key, values in each.items():
            right = [np.asarray(value) for value in values]
            np.testing.assert_allclose(our_each[key], right, rtol=0, atol=atol, err_msg=key)
    for weight, our_weight in zip(weights, our_weights, strict=True):
        np.testing.assert_allclose(our_weight, weight, rtol=0, atol=atol)
    return ours


def _of(data: Any, given: dict[str, Any]) -> dict[str, Any]:
    """A dataset has batches and an order of its own, a stream batches."""
    arguments = {**_GIVEN, **given}
    if hasattr(data[0], "element_spec"):
        arguments = {"verbose": 0, **given}
    elif batched_kind(data[0]) is not None:
        arguments = {"verbose": 0, "shuffle": False, **given}
    return arguments
