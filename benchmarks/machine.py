"""What a measurement ran on."""

import os
from typing import Any

from tfmb.environment.processor import processor_name
from tfmb.runs.run_dir import versions


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, memory and versions."""
    return {"processor": processor_name(), "cores": _cores(), "memory_gib": _memory_gib(), **versions()}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None
