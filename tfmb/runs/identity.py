"""The identity of a run: all that must be the same for it to go on exactly, compared by name."""

import json
import warnings
from pathlib import Path
from typing import Any

from tfmb.environment.old_names import with_new_names
from tfmb.errors import ConfigError, DataError

__all__ = ["changes", "check_identity"]


def check_identity(before: Any, now: dict[str, Any], run_dir: Path, allow_mismatch: bool) -> None:
    """Refuses to go on with something else than what the run began with.

    Args:
        before: the identity in the record or checkpoint.
        now: the identity that is asked for.
        run_dir: for messages.
        allow_mismatch: whether to go on all the same, with a warning.

    Raises:
        ConfigError: something differs; it names what.
        DataError: the record holds no identity.
    """
    if not isinstance(before, dict):
        raise DataError(f"{run_dir}: the record does not say what the run was made with: it is damaged")
    try:
        found = changes(before, now)
    except RecursionError as error:
        raise DataError(f"{run_dir}: what the run was made with makes no sense: the record is damaged") from error
    changed = [f"{key} was {_short(old)} and is {_short(new)}" for key, (old, new) in found.items()]
    if not changed:
        return
    if not allow_mismatch:
        raise ConfigError(f"{run_dir} cannot go on exactly: {'; '.join(changed)}: give --allow-mismatch to accept that")
    warnings.warn(f"{run_dir} goes on, but not exactly: {'; '.join(changed)}", stacklevel=3)


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the differences of two identities: dotted path -> (value before, value now)."""
    if "config" in before:
        before = {**before, "config": with_new_names(before["config"])}
    old, new = _leaves(before), _leaves(json.loads(json.dumps(now)))
    return {key: (old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}


def _leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by their dotted path."""
    if not isinstance(tree, dict):
        return {path: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _leaves(value, f"{path}.{key}" if path else str(key))
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:50]}..."
