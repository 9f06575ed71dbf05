"""Rows of the invariance matrix in which every pair of settings occurs; the slow tests run the whole of it."""

import matrix
import numpy as np
import pytest

import tfmb
from tfmb.backend import keras

ROWS = matrix.covering()
SEQUENCE_ROWS = [
    ("2 replicas", "whole", "global norm", "ragged", "adam"),
    ("4 replicas", "whole", "unclipped", "empty", "momentum"),
    ("1 replica", "micro", "value", "ragged", "sgd"),
    ("2 replicas", "micro", "unclipped", "empty", "momentum"),
]


def test_every_pair_occurs() -> None:
    assert set().union(*map(matrix.pairs_of, ROWS)) == matrix.all_pairs()
    assert len(matrix.all_pairs()) == 9 * 6 + 6 * 4  # six pairs of threes, four of a two and a three
    assert len(ROWS) < len(matrix.product()) / 8


@pytest.mark.usefixtures("float64")
def test_settings_of_the_matrix_matter() -> None:
    # Otherwise rows would agree because nothing happens in them.
    plain = matrix.reference("mlp", "unclipped", "even", "sgd")[0][0]
    for other in (("global norm", "even", "sgd"), ("value", "even", "sgd"), ("unclipped", "ragged", "sgd")):
        assert not np.allclose(matrix.reference("mlp", *other)[0][0], plain, atol=1e-4)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("row", ROWS, ids=", ".join)
def test_mlp_ends_like_whole_batches_on_one_replica(row: matrix.Row) -> None:
    matrix.check("mlp", row)


@pytest.mark.filterwarnings("ignore:lstm_cell.* draw random numbers")
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("row", SEQUENCE_ROWS, ids=", ".join)
def test_masked_sequences_end_like_whole_batches_on_one_replica(row: matrix.Row) -> None:
    matrix.check("sequences", row)


@pytest.mark.usefixtures("float64")
def test_lstm_without_dropout_warns_of_no_random_numbers() -> None:
    matrix.run("sequences", ("1 replica", "micro", "unclipped", "ragged", "sgd"))


@pytest.mark.parametrize("how", [{"replicas": 2}, {"micro_batch_size": 2}], ids=["2 replicas", "micro"])
def test_dense_layer_of_sequences_is_trained_in_parts(how: dict[str, int]) -> None:
    x = np.random.default_rng(0).normal(size=(16, 6, 4)).astype("float32")
    weights = []
    for given in ({}, how):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((6, 4)), keras.layers.Dense(3)])
        tfmb.fit(model, x, x[..., :3], batch_size=8, optimizer="sgd", loss="mse", verbose=0, seed=1, **given)
        weights.append(model.get_weights()[0])
    np.testing.assert_allclose(weights[1], weights[0], rtol=0, atol=1e-6)
