"""Outputs as a flat list, and what the user gave for them in the same order."""

from typing import Any

import pytest

from tfmb.errors import ConfigError
from tfmb.training.step.outputs import flatten_outputs, per_output


@pytest.mark.parametrize(
    ("outputs", "known", "names", "tensors"),
    [
        (1, ["logits"], ["output"], [1]),
        ([1, 2], ["a", "b"], ["a", "b"], [1, 2]),
        ((1, 2), None, ["output_1", "output_2"], [1, 2]),
        ([1, 2], ["one"], ["output_1", "output_2"], [1, 2]),
        ({"b": 1, "a": 2}, ["x", "y"], ["b", "a"], [1, 2]),
        ([1], ["a"], ["a"], [1]),
    ],
)
def test_flatten_outputs(outputs: Any, known: list[str] | None, names: list[str], tensors: list[int]) -> None:
    assert flatten_outputs(outputs, known) == (names, tensors)


@pytest.mark.parametrize("outputs", [[1, [2, 3]], {"a": {"b": 1}}, ([1],)])
def test_nested_outputs_are_refused(outputs: Any) -> None:
    with pytest.raises(ConfigError, match=r"\A[^\n]*nested[^\n]*\Z"):
        flatten_outputs(outputs, None)


@pytest.mark.parametrize(
    ("value", "names", "shared", "expected"),
    [
        (None, ["a", "b"], False, [None, None]),
        ("mse", ["a"], False, ["mse"]),
        ("mse", ["a", "b"], True, ["mse", "mse"]),
        (["mse", None], ["a", "b"], False, ["mse", None]),
        (("mse", "mae"), ["a", "b"], False, ["mse", "mae"]),
        ({"b": 1, "a": 2}, ["a", "b"], False, [2, 1]),
        ({"b": 1}, ["a", "b"], False, [None, 1]),
        ({"any name": 1}, ["output"], False, [1]),  # one output, one entry: Keras's name for it may differ
    ],
)
def test_per_output(value: Any, names: list[str], shared: bool, expected: list[Any]) -> None:
    assert per_output(value, names, "loss", shared=shared) == expected


@pytest.mark.parametrize(
    ("value", "names", "words"),
    [
        ({"c": 1, "a": 2}, ["a", "b"], "metrics names the output 'c', but the model has a, b"),
        ([1, 2, 3], ["a", "b"], "metrics has 3 entries for 2 output(s) (a, b)"),
        ([], ["a"], "metrics has 0 entries"),
        ("mae", ["a", "b"], "the model has 2 outputs (a, b)"),
    ],
)
def test_entries_that_do_not_fit_are_refused(value: Any, names: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        per_output(value, names, "metrics")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
