"""A program run as `python` runs it: its name, arguments, search path, errors and exit code."""

import contextlib
import importlib.machinery
import os
import runpy
import sys
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any, NoReturn

from tfmb.environment.console import fail
from tfmb.errors import PreemptedError, TfmbError
from tfmb.patching.keras_patch import KerasPatch

__all__ = ["Program"]

_RUNPYS = runpy.run_path.__code__.co_filename


@dataclass(frozen=True, kw_only=True)
class Program:
    """A script or a module, and what replaces Keras's methods in it.

    Attributes:
        name: of the script, as it was given, or of the module.
        arguments: what stood behind it.
        is_module: whether it is a module.
        patch: comes into force when the program imports Keras.
        own_process: whether the process is the program's: what it leaves behind stays then, as for threads that go on.
    """

    name: str
    arguments: list[str]
    is_module: bool
    patch: KerasPatch
    own_process: bool

    def run(self) -> None:
        """Runs it to its end.

        Raises:
            BaseException: what the program raises, to be shown as `python` shows it.
        """
        with contextlib.nullcontext() if self.own_process else _afterwards_as_before():
            try:
                self.patch.enter_when_imported()
                self._begin()
            except SystemExit:
                raise
            except PreemptedError as error:
                fail(error.exit_code, f"{str(error).rpartition(': go on with')[0]}: go on with the same command")
            except BaseException as error:
                if error is self.patch.refused:  # an option's fault, whichever line met it
                    fail(self.patch.refused.exit_code, str(error))
                trace = _from_the_program_on(error.__traceback__)
                if trace is None and self.is_module and isinstance(error, ImportError):
                    self._refuse(str(error), 1)  # of runpy: there is no such module
                _show_from(trace)
                if isinstance(error, TfmbError):
                    sys.excepthook(type(error), error, error.__traceback__)
                    raise SystemExit(error.exit_code) from None
                raise
            finally:
                if not self.own_process:
                    self.patch.leave()

    def _begin(self) -> None:
        sys.argv = [self.name, *self.arguments]
        if self.is_module:
            self._search_in(os.getcwd())
            runpy.run_module(self.name, run_name="__main__", alter_sys=True)
            return
        path = os.path.join(os.getcwd(), self.name)  # not made any shorter: python does not
        if os.path.isdir(path) or zipfile.is_zipfile(path):
            self._search_in(path)
            try:
                runpy.run_path(path, run_name="__main__")
            except ImportError as error:
                if _from_the_program_on(error.__traceback__) is None:
                    self._refuse(str(error), 1)
                raise
            return
        machinery = importlib.machinery
        is_source = not path.endswith(".pyc")
        loader = (machinery.SourceFileLoader if is_source else machinery.SourcelessFileLoader)("__main__", path)
        try:
            text = loader.get_data(path)
        except OSError as error:
            self._refuse(f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}", 2)
        self._search_in(os.path.dirname(os.path.realpath(path)))
        main = ModuleType("__main__")
        main.__file__, main.__loader__, main.__dict__["__cached__"] = path, loader, None
        sys.modules["__main__"] = main
        code: Any = compile(text, path, "exec", dont_inherit=True) if is_source else loader.get_code("__main__")
        exec(code, main.__dict__)

    def _search_in(self, folder: str) -> None:
        """Puts the program's folder where `python` puts it."""
        if sys.flags.safe_path:
            return
        if self.own_process:
            sys.path[0] = folder
        else:
            sys.path.insert(0, folder)

    def _refuse(self, reason: str, code: int) -> NoReturn:
        """Ends as `python` does where it finds no program."""
        print(f"{sys.executable}: {reason}", file=sys.stderr)
        raise SystemExit(code)


@contextlib.contextmanager
def _afterwards_as_before() -> Iterator[None]:
    """Puts back what a program finds changed or changes, where another program goes on after it."""
    hook, shown, arguments, path = sys.excepthook, warnings.showwarning, sys.argv, sys.path[:]
    main = sys.modules["__main__"]
    try:
        yield
    finally:
        sys.excepthook, warnings.showwarning, sys.argv, sys.path[:] = hook, shown, arguments, path
        sys.modules["__main__"] = main


def _from_the_program_on(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins in the program; None where there is none, as for its syntax errors."""
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, _RUNPYS):
        trace = trace.tb_next
    return trace


def _show_from(trace: TracebackType | None) -> None:
    """Has the error that ends the program shown without what called it, by the hook that the program has set."""
    hook = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        hook(kind, error.with_traceback(trace), trace)

    sys.excepthook = show
