"""Randomness as a pure function of (seed, purpose): no global generator of ours, and Keras's own put back."""

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np

__all__ = ["derive", "seeded"]


def derive(seed: int, *purpose: str | int) -> int:
    """A non-negative 31-bit seed for one purpose.

    Args:
        seed: the run's seed.
        *purpose: words and numbers that name the use, such as `"order"` or `("kernel", 3)`.

    Returns:
        The first 31 bits of a SHA-256 of them all: the same in every process, and unrelated between purposes.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the generators that Keras draws initial weights' seeds from, and puts them back.

    Not TensorFlow's global one, as `keras.utils.set_random_seed` does: that throws away all that was compiled.
    """
    before, arrays = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(arrays)
