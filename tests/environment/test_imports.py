"""`package.module:function` references of the user."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmb.environment.imports import check_reference, load_function
from tfmb.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Writes files into the working directory; what is imported from it is forgotten again."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path.copy())

    def write_file(path: str, text: str) -> Path:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    yield write_file
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.mark.parametrize("reference", ["m:f", "package.module:function", "a.b.c:d", "_m1:_f2"])
def test_a_reference_names_a_module_and_a_function(reference: str) -> None:
    check_reference(reference, "--dataset")


@pytest.mark.parametrize(
    "reference",
    ["", ":", "m", "m:", ":f", "m:f:g", "m.:f", ".m:f", "m..n:f", "m:f.g", "m/n:f", "1m:f", "m:1f", "m :f",
     "m:f\n", "-m:f", "m:f()"],
)  # fmt: skip
def test_another_form_is_refused_in_one_line_that_names_option_and_reference(reference: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_reference(reference, "--dataset")
    message = str(caught.value)
    assert message.startswith(f"--dataset {reference!r}")
    assert "package.module:function" in message
    assert "\n" not in message


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(alphabet=st.sampled_from("ab1_.:- /\n\t'é\0"), max_size=8))
def test_any_text_is_a_reference_or_a_config_error(text: str) -> None:
    module, colon, function = text.partition(":")
    right = colon and function.isidentifier() and all(part.isidentifier() for part in module.split("."))
    if right and text.isascii():
        check_reference(text, "--model")
    elif not right:
        with pytest.raises(ConfigError, match="--model"):
            check_reference(text, "--model")


def test_the_function_is_imported_from_the_working_directory(write: Callable[[str, str], Path]) -> None:
    write("own_module.py", "def build():\n    return 41 + 1\n")
    assert load_function("own_module:build", "--model")() == 42


def test_the_function_may_lie_in_a_package(write: Callable[[str, str], Path]) -> None:
    write("own_package/inner/__init__.py", "")
    write("own_package/inner/data.py", "class load:\n    pass\n")
    assert load_function("own_package.inner.data:load", "--dataset").__name__ == "load"


def test_the_working_directory_comes_first(write: Callable[[str, str], Path], tmp_path: Path) -> None:
    """Even where it stands on the path already, behind a folder with a module of the same name."""
    write("own_module.py", "def where():\n    return 'here'\n")
    write("../elsewhere/own_module.py", "def where():\n    return 'elsewhere'\n")
    sys.path[:0] = [str(tmp_path / "elsewhere"), str(tmp_path / "work")]
    assert load_function("own_module:where", "--dataset")() == "here"


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        ("no_such_module:f", "no module 'no_such_module'"),
        ("no_such.module:f", "no module 'no_such'"),
        ("own_module.sub:f", "no module 'own_module.sub'"),
        ("own_module:nothing", "has no function 'nothing'"),
        ("own_module:NUMBER", "has no function 'NUMBER'"),
    ],
)
def test_what_is_not_there_is_named_in_one_line(write: Callable[[str, str], Path], reference: str, named: str) -> None:
    write("own_module.py", "NUMBER = 5\n")
    with pytest.raises(ConfigError) as caught:
        load_function(reference, "--dataset")
    message = str(caught.value)
    assert message.startswith(f"--dataset {reference}")
    assert named in message
    assert "\n" not in message


def test_a_bad_form_imports_nothing(write: Callable[[str, str], Path]) -> None:
    write("own_module.py", "raise SystemExit('imported')\n")
    with pytest.raises(ConfigError):
        load_function("own_module:f()", "--dataset")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("1 / 0\n", ZeroDivisionError, "division by zero"),
        ("import module_that_is_not_here\n", ModuleNotFoundError, "module_that_is_not_here"),
        ("import own_mod\n", ModuleNotFoundError, "own_mod"),
        ("from sys import nothing_of_this_name\n", ImportError, "nothing_of_this_name"),
        ("def f(:\n", SyntaxError, "own_module.py"),
    ],
    ids=["arithmetic", "import of a module", "import of one with a like name", "import of a name", "syntax"],
)
def test_errors_inside_the_users_module_come_through(
    write: Callable[[str, str], Path], text: str, error: type[Exception], words: str
) -> None:
    write("own_module.py", text)
    with pytest.raises(error, match=words) as caught:
        load_function("own_module:f", "--dataset")
    assert not isinstance(caught.value, ConfigError)
