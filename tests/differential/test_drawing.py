"""What is drawn: all that there is, often enough, and as code that Python reads."""

import ast
from collections import Counter

import pytest

from .layers import IMAGE, REDUCE_IMAGE, REDUCE_SEQUENCE, SEQUENCE, VECTOR
from .objectives import LOSSES
from .optimizers import OPTIMIZERS
from .programs import draw
from .report import LEAST_SHARE
from .terms import call, calls_in, code, expression
from .writing import write

COUNT = 2000


@pytest.fixture(scope="module")
def drawn() -> Counter[str]:
    return Counter(name for seed in range(COUNT) for name in set(calls_in(draw(seed))))


def test_each_layer_loss_and_optimizer_stands_in_one_of_twenty_programs(drawn: Counter[str]) -> None:
    tables = {**VECTOR, **SEQUENCE, **IMAGE, **REDUCE_SEQUENCE, **REDUCE_IMAGE}
    names = {f"layers.{name}" for name in tables} - {"layers.recurrent", "layers.Sequential"}
    names |= {"Sequential", "layers.LSTM", "layers.GRU", "layers.SimpleRNN", "layers.Embedding", "layers.StringLookup"}
    names |= {f"losses.{name}" for name in LOSSES} | {f"optimizers.{name}" for name in OPTIMIZERS}
    assert {name: drawn[name] for name in names if drawn[name] < LEAST_SHARE * COUNT} == {}


def test_a_seed_is_a_program() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


@pytest.mark.parametrize("seed", range(20))
def test_a_program_is_code(seed: int) -> None:
    ast.parse(write(draw(seed)))


def test_terms_are_expressions() -> None:
    term = call("layers.Conv1D", 3, [2], kernel_regularizer=call("regularizers.L2", 0.1), name=None)
    assert expression(term) == "keras.layers.Conv1D(3, (2,), kernel_regularizer=keras.regularizers.L2(0.1))"
    assert expression({"y": [code("a"), None, "b"]}) == "{'y': [a, None, 'b']}"
    assert list(calls_in([term])) == ["layers.Conv1D", "regularizers.L2"]
