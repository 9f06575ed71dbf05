"""`tfmb doctor`: versions, devices, strategy, data caches."""

import os
import platform
from typing import Annotated, Any

import typer

from tfmb.cli.screen import emit_json, start_tensorflow

__all__ = ["doctor"]


def doctor(json: Annotated[bool, typer.Option("--json", help="One line of JSON on standard output.")] = False) -> None:
    """Show what tfmb runs on: versions, devices, the default strategy, and the data it has."""
    start_tensorflow()
    from tfmb.training.run_dir import versions

    report = {"versions": versions(), "machine": _machine(), "devices": _devices(), "data": _data()}
    if json:
        emit_json(report)
        return
    for title, entries in report.items():
        print(title)
        for key, value in entries.items():
            print(f"  {key}: {value}")


def _machine() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": platform.processor() or platform.machine(), "usable cores": usable}


def _devices() -> dict[str, Any]:
    from tfmb.backend import tf
    from tfmb.distribution import describe, make_strategy

    found = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
    strategy = describe(make_strategy("auto"))
    return {
        "physical": ", ".join(found),
        "strategy auto": f"{strategy['name']}, {strategy['replicas']} replica(s): {', '.join(strategy['devices'])}",
        "threads within an operation": tf.config.threading.get_intra_op_parallelism_threads() or "TensorFlow's choice",
    }


def _data() -> dict[str, Any]:
    from tfmb.data import tfds_images
    from tfmb.data.cache import cache_root

    root = cache_root()
    decoded = sorted(str(path.relative_to(root / "datasets")) for path in (root / "datasets").glob("*/[0-9]*"))
    mirror = tfds_images.mirror_from_environment()
    at_hand = mirror or tfds_images.is_cached("mnist")
    return {
        "cache": str(root),
        "decoded datasets": ", ".join(decoded) or "none",
        tfds_images.MIRROR_VARIABLE: mirror or "not set",
        "--dataset auto": "mnist" if at_hand else "mnist, if its host answers; else digits",
    }
