"""What is done after an import, whoever imports."""

import importlib
import importlib.machinery
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfmb.patching.import_hook import call_after_import


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_module.py").write_text("import own_other\nNUMBER = 3\n")
    (tmp_path / "own_other.py").write_text("")
    (tmp_path / "own_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    finders = sys.meta_path[:]
    yield
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def test_it_is_called_once_after_the_module_was_executed() -> None:
    seen: list[int] = []
    finders = len(sys.meta_path)
    call_after_import("own_module", lambda: seen.append(sys.modules["own_module"].NUMBER))
    import own_other  # noqa: F401  # another one than is waited for

    assert seen == []
    module = importlib.import_module("own_module")
    assert seen == [3]
    assert module.__spec__ is not None
    loader = module.__spec__.loader  # the one that there would have been
    assert isinstance(loader, importlib.machinery.SourceFileLoader)
    assert loader.get_filename() == module.__file__
    importlib.reload(module)
    assert seen == [3]
    assert len(sys.meta_path) == finders


def test_it_is_called_at_once_where_the_module_is_there() -> None:
    importlib.import_module("own_module")
    seen: list[int] = []
    call_after_import("own_module", lambda: seen.append(1))
    assert seen == [1]


def test_what_it_raises_is_raised_by_the_import() -> None:
    def refuse() -> None:
        raise ValueError("refused")

    call_after_import("own_module", refuse)
    with pytest.raises(ValueError, match="refused"):
        importlib.import_module("own_module")


def test_modules_that_fail_or_are_not_there_fail_as_without_it() -> None:
    seen: list[int] = []
    for name in ("own_broken", "own_nothing"):
        call_after_import(name, lambda: seen.append(1))
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("own_broken")
    with pytest.raises(ModuleNotFoundError, match="own_nothing"):
        importlib.import_module("own_nothing")
    assert seen == []


def test_it_can_be_forgotten() -> None:
    seen: list[int] = []
    forget = call_after_import("own_module", lambda: seen.append(1))
    forget()
    forget()
    importlib.import_module("own_module")
    assert seen == []
