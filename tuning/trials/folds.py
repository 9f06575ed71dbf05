"""The examples of one training of a trial: those of the search, or all folds but one to learn from and that one."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfmb.data.batches import Order
from tfmb.data.records import Records
from tfmb.data.source import Source
from tfmb.training.input.array_pipeline import ArrayPipeline, arrays_on_device

__all__ = ["Examples", "fold"]

_SCORED_BATCH = 256


@dataclass(frozen=True, eq=False)
class Examples:
    """What is learned from and what is scored, on the device where it is in memory.

    Attributes:
        train: the examples to learn from.
        arrays: their tensors; None if they are read by their number.
        validation: batches of the others.
    """

    train: Source | Records
    arrays: Any
    validation: ArrayPipeline

    @classmethod
    def of(cls, train: Source | Records, validation: Source | Records) -> "Examples":
        """Puts them on the device."""
        size = min(_SCORED_BATCH, validation.size)
        order = Order(num_examples=validation.size, batch_size=size, seed=0, shuffle=False)
        arrays = None if isinstance(train, Records) else arrays_on_device(train)
        return cls(train, arrays, ArrayPipeline(validation, order))


def fold(train: Source, validation: Source, number: int, count: int, seed: int) -> tuple[Source, Source]:
    """Returns the examples to learn from and those to score of fold `number` of `count`.

    Args:
        train: all examples, as they are learned from.
        validation: the same examples, as they are scored.
        number: from 0.
        count: the number of folds: each example is scored in one of them.
        seed: decides which.
    """
    # Drawn from the names of the rows: no generator's stream can change under us.
    names = [hashlib.sha256(f"fold {seed} {row}".encode()).digest() for row in range(train.size)]
    scored = np.sort(np.array(sorted(range(train.size), key=names.__getitem__)[number::count]))
    rest = np.setdiff1d(np.arange(train.size), scored)
    return train.rows(rest), validation.rows(scored, name=f"{validation.name} (fold {number + 1})")
