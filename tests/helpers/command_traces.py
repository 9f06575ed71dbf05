"""What a command leaves behind that can be seen, without times: two commands that did the same leave the same."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from command_runs import Ended

__all__ = ["traces_of"]

_TIMES = re.compile(r"\w*(seconds|per_second|_time|time|started|pid|host|port|load)$")
# Numbers with a unit of time or speed; the time and host in the name of an events file.
_SPANS = re.compile(
    r"[\d.,]+(e[-+]?\d+)? ?(ms|s|m|h|min|examples/s|ex/s|MiB|GFLOP/s)\b|\btfevents\.\S+|\d+:\d\d(:\d\d)?"
)
# What only repeats the options is no effect of them.
_REPEATED = ("config", "identity", "hp_values_asked")


def traces_of(ended: Ended, folder: Path, before: set[str]) -> list[str]:
    """The exit code, what was written to the screen, and each file that is new or is a record.

    Args:
        ended: the command.
        folder: in which it worked.
        before: the names of the files that were there.
    """
    found = [f"code {ended.code}", *(f"out {_text(line)}" for line in ended.out.splitlines())]
    found += [f"err {_text(line)}" for line in ended.err.splitlines()]
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and "tensorboard" not in name and not name.startswith("cache"):
            shown = _contents(path)
            if name not in before or shown:
                found.append(f"file {_SPANS.sub('#', name)} {shown}")
    return found


def _contents(path: Path) -> str:
    """A digest of a record without its times and options; nothing of other files, which hold times or are told of."""
    if path.suffix == ".json" and path.name != "MANIFEST.json":
        return _digest(_stripped(_parsed(path.read_text(errors="replace"))))
    if path.suffix in (".jsonl", ".log"):
        return _digest([_stripped(_parsed(line)) for line in path.read_text(errors="replace").splitlines()])
    return ""


def _text(line: str) -> Any:
    found = _parsed(line)
    return json.dumps(_stripped(found), sort_keys=True) if isinstance(found, dict) else _SPANS.sub("#", line)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _stripped(tree: Any) -> Any:
    if isinstance(tree, dict):
        kept = {key: value for key, value in tree.items() if key not in _REPEATED and not _TIMES.fullmatch(key)}
        return {key: _stripped(value) for key, value in kept.items()}
    if isinstance(tree, list):
        return [_stripped(value) for value in tree]
    return _SPANS.sub("#", tree) if isinstance(tree, str) else tree


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]
