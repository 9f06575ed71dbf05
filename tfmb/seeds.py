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
    """Seeds what Keras draws initial weights from, and afterwards puts it back where it was.

    These are the generators of Python's `random`, of NumPy and of `keras.random`. TensorFlow's global seed, which
    `keras.utils.set_random_seed` sets too, is left alone: setting it throws away all that was compiled.
    """
    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
    from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED

    names = (GLOBAL_SEED_GENERATOR, GLOBAL_RANDOM_SEED)
    python, numpy = random.getstate(), np.random.get_state()
    keras = {name: global_state.get_global_attribute(name) for name in names}
    random.seed(seed)
    np.random.seed(seed % 2**32)
    for name in names:  # `keras.random` makes its generator anew, with a seed that it draws from Python's
        global_state.set_global_attribute(name, None)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for name, value in keras.items():
            global_state.set_global_attribute(name, value)
