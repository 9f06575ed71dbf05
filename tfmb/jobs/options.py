"""The declaration of an option: its field of a dataclass holds name, type, default, range and help, once for all.

The dataclass checks its values by it, the command line is made of it, and so is the page of options in the docs.
"""

import dataclasses
import functools
import math
import types
import typing
from dataclasses import dataclass
from typing import Any

from tfmb.errors import ConfigError

__all__ = ["Option", "check_options", "flag", "option", "options_of"]

_KEY = "option"


@dataclass(frozen=True, kw_only=True)
class Option:
    """The declaration of one option.

    Attributes:
        name: of the field.
        kind: `bool`, `int`, `float` or `str`.
        optional: whether it may be None.
        default: its default.
        help: its line of `--help`.
        panel: the group of `--help` that it stands in.
        least: the least number that it may be.
        names: the words that a text is one of; empty where any text will do.
        words: words that may stand in place of a number.
    """

    name: str = ""
    kind: type = str
    optional: bool = False
    default: Any = None
    help: str
    panel: str
    least: int = 0
    names: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def option(default: Any, help: str, panel: str, **rest: Any) -> Any:
    """Makes the field of an option; see `Option` for the arguments."""
    return dataclasses.field(default=default, metadata={_KEY: Option(help=help, panel=panel, **rest)})


def flag(name: str) -> str:
    """Returns an option as it stands on the command line: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")


@functools.cache
def options_of(config: type) -> dict[str, Option]:
    """Returns the options that a dataclass declares, by the names of their fields."""
    hints = typing.get_type_hints(config)
    found = {}
    for field in dataclasses.fields(config):
        if _KEY in field.metadata:
            hint = hints[field.name]
            kinds = typing.get_args(hint) or (hint,)
            kind = next(each for each in kinds if isinstance(each, type) and each is not types.NoneType)
            about = {"name": field.name, "kind": kind, "optional": types.NoneType in kinds, "default": field.default}
            found[field.name] = dataclasses.replace(field.metadata[_KEY], **about)
    return found


def check_options(config: Any) -> None:
    """Checks the type and the range of every option of a dataclass.

    Raises:
        ConfigError: a value that makes no sense, in one line that names the option.
    """
    cls: type = type(config)
    for name, about in options_of(cls).items():
        value = getattr(config, name)
        if value is None and about.optional:
            continue
        if (wrong := _wrong(about, value)) is not None:
            raise ConfigError(f"{flag(name)} {value!r} must be {wrong}")
        if about.names and value not in about.names:
            raise ConfigError(f"unknown {flag(name)} {value!r}: give {', '.join(about.names)}")


def _wrong(about: Option, value: Any) -> str | None:
    """Returns the words for a value that is wrong: the thing it must be; None if it is that."""
    if about.kind is str:
        return None if isinstance(value, str) else "text"
    if about.kind is bool:
        return None if isinstance(value, bool) else "true or false"
    if isinstance(value, str) and value in about.words:
        return None
    other = "".join(f" or {word!r}" for word in about.words)
    if about.kind is int:
        whole = isinstance(value, int) and not isinstance(value, bool) and about.least <= value < 2**63
        return None if whole else f"an integer of at least {about.least}{other}"
    return None if is_number(value, about.least, math.inf) else f"a number {in_range(about.least, math.inf)}{other}"


def is_number(value: Any, least: float, below: float) -> bool:
    """Whether a value is a number, not a switch, in [least, below)."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= float(value) < below
    except OverflowError:
        return False  # an integer that no float holds


def in_range(least: float, below: float) -> str:
    """Returns a range in words."""
    return f"at least {least:g}" if below == math.inf else f"in [{least:g}, {below:g})"
