"""Devices and workers: a `tf.distribute` strategy from a name, and logical CPU devices to try replicas on any machine.

TensorFlow is imported when the first of these names is used: the launcher of workers needs none.

Example:
    >>> strategy = tfmb.distribution.make_strategy("mirrored", 2)
    >>> strategy.num_replicas_in_sync
    2
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmb.distribution.strategy import (
        adds_up_on_one_device,
        configure_replicas,
        describe,
        is_chief,
        is_multi_worker,
        is_on_cpu,
        make_cpu_devices,
        make_local_strategy,
        make_strategy,
        makes_copies,
        needs_static_shapes,
        outside_of_scopes,
        steps_a_call,
    )

__all__ = [
    "adds_up_on_one_device",
    "configure_replicas",
    "describe",
    "is_chief",
    "is_multi_worker",
    "is_on_cpu",
    "make_cpu_devices",
    "make_local_strategy",
    "make_strategy",
    "makes_copies",
    "needs_static_shapes",
    "outside_of_scopes",
    "steps_a_call",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tfmb.distribution' has no attribute {name!r}")
    return getattr(importlib.import_module("tfmb.distribution.strategy"), name)
