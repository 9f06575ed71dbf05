"""GPUs that this machine has, beside those that TensorFlow can use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["gpus", "nvidia_cards"]

_PCI, _DRIVER = Path("/sys/bus/pci/devices"), Path("/proc/driver/nvidia")
_NVIDIA, _DISPLAY = "0x10de", "0x03"
_HIDES = "CUDA_VISIBLE_DEVICES"


def nvidia_cards(pci: Path = _PCI) -> int:
    """How many of NVIDIA's display controllers are on the PCI bus; 0 where there is no such bus to look at.

    Args:
        pci: Linux's folder of devices.
    """
    found = 0
    for vendor in sorted(pci.glob("*/vendor")):
        try:
            maker, kind = vendor.read_text().strip(), vendor.with_name("class").read_text().strip()
        except OSError:  # it was taken away meanwhile
            continue
        found += maker == _NVIDIA and kind.startswith(_DISPLAY)
    return found


def gpus(
    seen: int, environment: Mapping[str, str], pci: Path = _PCI, driver: Path = _DRIVER, smi: str | None = None
) -> tuple[dict[str, Any], str | None]:
    """What there is, and what stands in the way of using it.

    Args:
        seen: how many GPUs TensorFlow lists.
        environment: of the process.
        pci: Linux's folder of devices.
        driver: the folder that NVIDIA's driver makes.
        smi: where `nvidia-smi` is; None where it is not there.

    Returns:
        `(entries, warning)`: the GPUs and the driver; and why a GPU cannot be used, or None.
    """
    cards, loaded, hidden = nvidia_cards(pci), driver.exists(), environment.get(_HIDES)
    entries: dict[str, Any] = {"NVIDIA GPUs": cards, "NVIDIA driver": _version(driver)}
    if hidden is not None:
        entries[_HIDES] = repr(hidden)
    if seen or not (cards or loaded or smi):
        return entries, None
    if not loaded and cards:
        mend = "install NVIDIA's driver, or start the container with its GPUs (docker run --gpus all)"
        return entries, f"{cards} NVIDIA GPU(s) and no driver ({driver} is missing): {mend}"
    if hidden is not None and hidden.split(",")[0].strip() in ("", "-1", "NoDevFiles", "none", "void"):
        return entries, f"{_HIDES}={hidden!r} hides every GPU: unset it"
    if hidden is not None:
        return entries, f"{_HIDES}={hidden!r} names no GPU that TensorFlow can use: compare it with `nvidia-smi -L`"
    if not loaded:
        return entries, f"{smi} is there, but no driver ({driver} is missing): install NVIDIA's driver"
    return entries, "TensorFlow sees no GPU, though NVIDIA's driver is there: pip install 'tensorflow[and-cuda]'"


def _version(driver: Path) -> str:
    try:
        words = (driver / "version").read_text().split()
    except OSError:
        return "there" if driver.exists() else "none"
    return next((word for word in words if word[0].isdigit() and "." in word), "there")
