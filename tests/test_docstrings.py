"""Every public name says what it takes and gives, with an example; the examples run."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from documented import example_of, folder_with_mine, names, run_example, smaller

import tfmb
from tfmb.optimizers import schedules

pytestmark = pytest.mark.usefixtures("fresh_keras")

OWNERS = (tfmb.callbacks, tfmb.data, tfmb.layers, tfmb.models, tfmb.optimizers, schedules)


def public() -> dict[str, Any]:
    """The names of `tfmb`, and the functions and classes of its public modules (an error is none that one calls)."""
    found = {f"tfmb.{name}": getattr(tfmb, name) for name in tfmb.__all__}
    for owner in OWNERS:
        for name in owner.__all__:
            thing = getattr(owner, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                found[f"{owner.__name__}.{name}"] = thing
    return found


PUBLIC = public()


def test_every_public_name_has_an_example() -> None:
    assert [name for name, thing in PUBLIC.items() if not example_of(thing)] == []


def test_every_argument_of_a_public_function_is_documented() -> None:
    missing = []
    for name, thing in PUBLIC.items():
        if not inspect.isfunction(thing):
            continue
        words = inspect.getdoc(thing) or ""
        for parameter in inspect.signature(thing).parameters.values():
            if f"\n    {'**' if parameter.kind is parameter.VAR_KEYWORD else ''}{parameter.name}: " not in words:
                missing.append(f"{name}({parameter.name})")
    assert missing == []


def test_every_public_function_that_refuses_says_so() -> None:
    """Where its own body raises, the docstring has `Raises:`."""
    for name, thing in PUBLIC.items():
        if inspect.isfunction(thing) and "raise " in inspect.getsource(thing):
            assert "\nRaises:\n" in (inspect.getdoc(thing) or ""), name


@pytest.mark.docs
@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_runs(name: str, tmp_path: Path, same_process: None) -> None:
    with folder_with_mine(tmp_path):
        run_example(smaller(example_of(PUBLIC[name])), names())


def test_an_example_that_answers_otherwise_fails() -> None:
    run_example(">>> 1 + 1\n2\n>>> 'abc'\n'a...'\n", {})
    with pytest.raises(AssertionError, match="gave '3"):
        run_example(">>> 1 + 2\n2\n", {})
