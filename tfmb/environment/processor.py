"""The processor of this machine. The module needs no TensorFlow."""

import os
import platform
from pathlib import Path

from tfmb.environment.children import run

__all__ = ["available_cores", "instruction_sets", "processor_name"]

_CPUINFO = Path("/proc/cpuinfo")
# What TensorFlow's kernels are made for: float32 in 8 and 16 lanes, bfloat16, matrices; Arm's counterparts.
_OF_USE = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16")


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name(cpuinfo: Path = _CPUINFO, system: str | None = None) -> str:
    """Returns the processor's model name if the system tells it, else the kind of machine.

    Args:
        cpuinfo: Linux's file.
        system: as `platform.system` has it; None asks.
    """
    named = _entry("model name", cpuinfo)
    if named is None and (system or platform.system()) == "Darwin":
        named = _sysctl("machdep.cpu.brand_string")
    return named or platform.processor() or platform.machine()


def instruction_sets(cpuinfo: Path = _CPUINFO) -> list[str]:
    """Returns the instruction sets of the processor that matter here; nothing if Linux does not tell.

    Args:
        cpuinfo: Linux's file.
    """
    flags = (_entry("flags", cpuinfo) or _entry("Features", cpuinfo) or "").split()
    return [name for name in _OF_USE if name in flags]


def _entry(key: str, cpuinfo: Path) -> str | None:
    """Returns the value of a key for the first processor."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return None
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == key), None) or None


def _sysctl(name: str) -> str | None:
    try:
        return run(["sysctl", "-n", name], seconds=10).output.strip() or None
    except OSError:
        return None
