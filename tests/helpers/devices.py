"""Logical CPU devices for the tests' own process, made as soon as `tfmb.backend` has imported TensorFlow.

They must be made before TensorFlow starts, and a test module may start it while it is imported. But what needs no
TensorFlow must not wait for it.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

__all__ = ["make_when_tensorflow_is_imported"]

_BACKEND = "tfmb.backend"


def make_when_tensorflow_is_imported(count: int) -> None:
    """Makes so many logical CPU devices, now or when `tfmb.backend` is imported."""
    if _BACKEND in sys.modules:
        _make(sys.modules[_BACKEND], count)
    else:
        sys.meta_path.insert(0, _Finder(count))


def _make(backend: ModuleType, count: int) -> None:
    config = backend.tf.config
    (cpu,) = config.list_physical_devices("CPU")
    config.set_logical_device_configuration(cpu, [config.LogicalDeviceConfiguration()] * count)
    config.list_logical_devices()  # TensorFlow starts: no test can ask for another number by mistake


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `tfmb.backend` once, as the others do, and has devices made after it."""

    def __init__(self, count: int) -> None:
        self._count = count

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _BACKEND:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        load, count = spec.loader.exec_module, self._count

        def load_and_make(module: ModuleType) -> None:
            load(module)
            _make(module, count)

        spec.loader.exec_module = load_and_make  # type: ignore[method-assign]
        return spec
