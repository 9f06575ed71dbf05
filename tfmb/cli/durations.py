"""Times on the command line: `90s`, `10m`, `2h`, or seconds."""

from tfmb.errors import ConfigError

__all__ = ["seconds_of"]

_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(option: str, text: str) -> float:
    """Seconds of such a text.

    Raises:
        ConfigError: it is none, or not more than 0.
    """
    try:
        found = float(text[:-1]) * _UNITS[text[-1]] if text[-1:] in _UNITS else float(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: give seconds, or 90s, 10m, 2h") from error
    if not 0 < found < float("inf"):
        raise ConfigError(f"{option} {text!r} must be more than 0")
    return found
