"""Does something as soon as a module was imported, by whoever imports it."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

__all__ = ["call_after_import"]


def call_after_import(name: str, function: Callable[[], None]) -> Callable[[], None]:
    """Calls a function once: now if the module was imported, else when it will have been.

    Args:
        name: of the module.
        function: its errors are raised where the module is imported.

    Returns:
        A function that forgets it, where the module has not been imported.
    """
    finder = _Finder(name, function)
    if name in sys.modules:
        function()
    else:
        sys.meta_path.insert(0, finder)
    return finder.forget


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module as the other finders do, and has the function called after it."""

    def __init__(self, name: str, function: Callable[[], None]) -> None:
        self._name = name
        self._function = function
        self._is_asking = False

    def forget(self) -> None:
        """Stops finding the module."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the other finders' spec, with a loader that calls the function in the end."""
        if fullname != self._name or self._is_asking:
            return None
        self._is_asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._is_asking = False
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_call(module: ModuleType) -> None:
            load(module)
            if self in sys.meta_path:
                self.forget()
                self._function()

        # Of this one loader: mypy takes methods for fixed.
        spec.loader.exec_module = load_and_call  # type: ignore[method-assign]
        return spec
