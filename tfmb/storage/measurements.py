"""Measurements kept in the cache: one small JSON file for each question's fingerprint."""

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

from tfmb.storage.cache import cache_root
from tfmb.storage.files import read_json

__all__ = ["recall", "remember"]

# An answer has some hundred bytes.
_MOST_BYTES = 2**20


def recall(kind: str, fingerprint: dict[str, Any]) -> Any:
    """Returns the answer to a question, as `remember` got it; None if there is none that can be read.

    Args:
        kind: the name of a folder in the cache.
        fingerprint: all that decides the answer.
    """
    try:
        return read_json(_path(kind, fingerprint), _MOST_BYTES)
    except (OSError, ValueError):
        return None


def remember(kind: str, fingerprint: dict[str, Any], answer: Any) -> None:
    """Keeps an answer that JSON can hold. A cache that cannot be written costs the next one a measurement."""
    path = _path(kind, fingerprint)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(answer, allow_nan=False))
        temporary.replace(path)
    except (OSError, ValueError):  # a number that is not finite, too: such an answer is none
        pass


def _path(kind: str, fingerprint: dict[str, Any]) -> Path:
    text = json.dumps(fingerprint, sort_keys=True)
    return cache_root() / kind / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
