"""The public surface: what it is, that it is documented and annotated, and what importing it costs."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import tfmb

PUBLIC = [
    "advise",
    "callbacks",
    "configure_replicas",
    "data",
    "distribution",
    "errors",
    "evaluate",
    "export",
    "fit",
    "layers",
    "lr_range",
    "models",
    "optimizers",
    "patch_keras",
    "predict",
    "tune",
    "verify",
]


def test_the_public_names() -> None:
    assert tfmb.__all__ == PUBLIC
    for name in PUBLIC:
        assert getattr(tfmb, name) is not None
    assert set(PUBLIC) <= set(dir(tfmb))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tfmb.nothing


@pytest.mark.process
def test_importing_tfmb_does_not_import_tensorflow() -> None:
    code = "import tfmb, sys; assert tfmb.__version__; assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.process
@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [("KERAS_BACKEND", "jax", "Keras's TensorFlow backend"), ("TF_USE_LEGACY_KERAS", "1", "not legacy tf_keras")],
)
def test_another_keras_is_refused_in_one_line(variable: str, value: str, words: str) -> None:
    code = f"import os; os.environ[{variable!r}] = {value!r}\nfrom tfmb.cli import main; main(['doctor'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr


def modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(tfmb.__path__, "tfmb."):
        if not found.name.endswith(("__main__", "run_saved_model")):
            yield importlib.import_module(found.name)


def functions(owner: Any, module: Any) -> Iterator[tuple[str, Any]]:
    for name, value in vars(owner).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if inspect.isfunction(function) and function.__module__ == module.__name__ and function.__name__ == name:
            yield f"{module.__name__}.{getattr(owner, '__qualname__', '')}.{name}", function


def test_every_public_function_is_documented() -> None:
    undocumented = []
    for module in modules():
        owners = [module, *(v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == module.__name__)]
        for owner in owners:
            for name, function in functions(owner, module):
                if not function.__name__.startswith("_") and not inspect.getdoc(function):
                    undocumented.append(name)
    assert not undocumented


def test_each_module_says_what_it_is() -> None:
    assert [module.__name__ for module in modules() if not module.__doc__] == []
