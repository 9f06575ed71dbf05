"""Tensors come back from disk under their own names, in whatever order they were written."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfmb.backend import tf
from tfmb.storage.tensor_bundle import digest_of, read_bundle, write_bundle

NAMES = ["model/0000", "optimizer/0000", "loss_scale/0000"]


def layout_of(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """What a checkpoint's manifest tells of its tensors."""
    return {name: [value.dtype.name, list(value.shape)] for name, value in tensors.items()}


@pytest.mark.parametrize("names", list(itertools.permutations(NAMES)), ids=lambda names: names[0][:5] + names[1][:5])
def test_order_of_names_is_kept(tmp_path: Path, names: tuple[str, ...]) -> None:
    tensors = {name: np.full(3, number, "float32") for number, name in enumerate(names)}
    write_bundle(tmp_path, tensors)
    found = read_bundle(tmp_path, layout_of(tensors))
    assert digest_of(found) == digest_of(tensors)


def test_more_variables_than_four_digits_count(tmp_path: Path) -> None:
    tensors = {f"model/{number:04d}": np.array([number], "int32") for number in (9998, 9999, 10000, 10001)}
    write_bundle(tmp_path, tensors)
    found = read_bundle(tmp_path, layout_of(tensors))
    assert {name: value.tolist() for name, value in found.items()} == {n: v.tolist() for n, v in tensors.items()}


def test_file_of_another_size_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path, {"model/0000": np.zeros(3, "float32")})
    with pytest.raises(ValueError, match="12 bytes of tensors, not 16"):
        read_bundle(tmp_path, {"model/0000": ["float32", [4]]})


def test_every_dtype_that_a_weight_may_have_comes_back(tmp_path: Path) -> None:
    names = ["float16", "bfloat16", "float32", "float64", "int64", "uint8", "bool"]
    tensors = {name: np.asarray(tf.cast([[0, 1], [2, 3]], name)) for name in names}
    tensors["scalar"] = np.asarray(7, "int64")
    write_bundle(tmp_path, tensors)
    found = read_bundle(tmp_path, layout_of(tensors))
    assert {name: (value.dtype, value.tolist()) for name, value in found.items()} == {
        name: (value.dtype, value.tolist()) for name, value in tensors.items()
    }


@pytest.mark.parametrize("dtype", ["float31", "resource", None])
def test_layout_of_no_dtype_is_refused(tmp_path: Path, dtype: Any) -> None:
    write_bundle(tmp_path, {"model/0000": np.zeros(3, "float32")})
    with pytest.raises((ValueError, TypeError)):
        read_bundle(tmp_path, {"model/0000": [dtype, [3]]})
