"""Which packages are missing, of those that tfmb and its extras name, and the command that installs them."""

import re
import shlex
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

__all__ = ["extras", "is_installed"]

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(?P<rest>[^;]*)(;(?P<marker>.*))?")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([A-Za-z0-9._-]+)['\"]")


def is_installed(package: str) -> bool:
    """Whether a package of that name is there, in whatever version."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def extras(
    requirements: Iterable[str], installed: Callable[[str], bool] = is_installed
) -> tuple[dict[str, Any], str | None]:
    """What is missing, by extra.

    Args:
        requirements: as a package's metadata has them, such as `torch<3,>=2.8; extra == "bench"`.
        installed: whether a package is there.

    Returns:
        `(entries, warning)`: for each extra `installed`, or that it is missing and what to type; and the same of the
        packages that tfmb cannot do without, or None.
    """
    missing: dict[str, list[str]] = {}
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        assert found is not None, requirement
        extra = _EXTRA.search(found["marker"] or "")
        wants = missing.setdefault("" if extra is None else extra[1], [])
        if not installed(found["name"]):
            wants.append(found["name"] + found["rest"].replace(" ", "").strip("()"))
    needed = missing.pop("", [])
    entries = {name: f"missing; {_command(wants)}" if wants else "installed" for name, wants in sorted(missing.items())}
    return entries, f"tfmb cannot do without what is missing here: {_command(needed)}" if needed else None


def _command(packages: list[str]) -> str:
    return f"pip install {shlex.join(packages)}"
