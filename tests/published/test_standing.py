"""Small programs of the kinds that are published: `patch_keras(strict=True)` trains what Keras trains."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from cases import here

import tfmb
from tfmb.backend import keras

from .judging import same_numbers

pytestmark = [
    pytest.mark.usefixtures("fresh_keras"),
    pytest.mark.compile,
    pytest.mark.filterwarnings(
        "ignore:.*(shuffle=True. was passed|.PyDataset. class should call|must see every batch)"
    ),
]

STANDING = Path(__file__).parent / "standing"
DAILY = ["columns_of_a_table", "distillation", "segmentation"]


def found(name: str) -> Any:
    """What a program comes to: numbers and names."""
    keras.backend.clear_session()
    return runpy.run_path(str(STANDING / f"{name}.py"), run_name="__main__")["found"]


@pytest.mark.parametrize("name", here(sorted(path.stem for path in STANDING.glob("*.py")), DAILY))
def test_a_program_comes_to_what_it_comes_to_with_keras(name: str) -> None:
    expected = found(name)
    with tfmb.patch_keras(strict=True):
        ours = found(name)
    assert same_numbers(ours, expected), f"{ours} and not {expected}"
