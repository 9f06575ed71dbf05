"""A call of ours in the place of a method of `keras.Model`: what it may go past, and whether it can still be refused.

A call that was refused may be made by Keras instead only where nothing has happened yet that cannot be taken back: no
update was made, no callback was called, and nothing was drawn from the caller's data.
"""

import contextlib
import contextvars
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tfmb.types import KerasModel

__all__ = ["Call", "as_method", "begins", "drawn_seed", "goes_through", "within"]


@dataclass
class Call:
    """A call in the place of a method.

    Attributes:
        model: the model of the method.
        method: its name.
        seed: for a training that was given none.
        begun: whether it is too late to have Keras make the call instead.
    """

    model: Any
    method: str
    seed: int | None = None
    begun: bool = False


_call: contextvars.ContextVar[Call | None] = contextvars.ContextVar("tfmb_call", default=None)


@contextlib.contextmanager
def as_method(model: KerasModel, method: str, seed: int | None = None) -> Iterator[Call]:
    """Makes a function of ours stand for a method of a model inside the `with` block: see `Call`."""
    call = Call(model, method, seed)
    token = _call.set(call)
    try:
        yield call
    finally:
        _call.reset(token)


def begins() -> None:
    """Marks the point before callbacks are called, and before anything is drawn from the caller's dataset."""
    call = _call.get()
    if call is not None:
        call.begun = True


def drawn_seed() -> int:
    """A seed for a training that was given none, drawn from Python's `random`.

    In the place of a method it is made without moving that generator, as Keras leaves it alone too: the initial weights
    of a model that the program builds next come from there.
    """
    call = _call.get()
    return random.randrange(2**31) if call is None or call.seed is None else call.seed


def goes_through(model: KerasModel, method: str) -> bool:
    """Whether the model's own method, if it has one, was called already: it called the one of `keras.Model`."""
    call = _call.get()
    return call is not None and call.model is model and call.method == method


def within(method: str) -> bool:
    """Whether a call in the place of that method goes on, so that this is one of its callbacks."""
    call = _call.get()
    return call is not None and call.method == method
