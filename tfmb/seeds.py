"""Randomness as a pure function of (seed, purpose): no global generator is ever read or moved."""

import hashlib

__all__ = ["derive"]


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
