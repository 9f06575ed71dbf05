"""Rows of the invariance matrix in which every pair of settings occurs; the slow tests run the whole of it."""

from typing import Any

import matrix
import numpy as np
import pytest
from cases import here

import tfmb
from tfmb.backend import keras

ROWS = matrix.covering()
# Of the models that take longer: rows that differ in everything.
FEW = [
    ("2 replicas", "micro", "global norm", "adam", "graph", "ragged"),
    ("4 replicas", "whole", "value", "momentum", "xla", "empty"),
]
SEQUENCE_ROWS = [
    ("2 replicas", "whole", "global norm", "adam", "xla", "ragged"),
    ("4 replicas", "whole", "unclipped", "momentum", "graph", "empty"),
    ("1 replica", "micro", "value", "sgd", "graph", "ragged"),
]
few = pytest.mark.parametrize("row", FEW, ids=", ".join)
# The others, and every row of every model, are slow.
SOME = here(ROWS, ROWS[::5])


def test_every_pair_occurs() -> None:
    assert set().union(*map(matrix.pairs_of, ROWS)) == matrix.all_pairs()
    assert len(matrix.product()) == 3**4 * 2**2
    assert len(matrix.all_pairs()) == 9 * 6 + 6 * 8 + 4  # six pairs of threes, eight of a two and a three, one of twos
    assert len(ROWS) < len(matrix.product()) / 15


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
def test_settings_of_the_matrix_matter() -> None:
    # Otherwise rows would agree because nothing happens in them.
    row = ("1 replica", "whole", "unclipped", "sgd", "graph", "even")
    plain = matrix.reference("mlp", row)[0][0]
    others = [(*row[:2], clip, *row[3:]) for clip in ("global norm", "value")] + [(*row[:5], "ragged")]
    for other in others:
        assert not np.allclose(matrix.reference("mlp", other)[0][0], plain, atol=1e-4), other


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("row", SOME, ids=", ".join)
def test_mlp_ends_like_whole_batches_on_one_replica(row: matrix.Row) -> None:
    matrix.check("mlp", row)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@few
def test_table_and_cnn_end_like_whole_batches_on_one_replica(row: matrix.Row) -> None:
    matrix.check("table", row)
    if row[4] == "graph":  # XLA compiles the CNN for a minute: see the slow tests
        matrix.check("cnn", row)


@pytest.mark.compile
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("row", here(SEQUENCE_ROWS, SEQUENCE_ROWS[:1]), ids=", ".join)
def test_masked_sequences_end_like_whole_batches_on_one_replica(row: matrix.Row) -> None:
    matrix.check("sequences", row)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_lstm_without_dropout_warns_of_no_random_numbers() -> None:
    matrix.check("lstm", ("1 replica", "micro", "unclipped", "sgd", "graph", "ragged"))


@pytest.mark.compile
@few
@pytest.mark.parametrize("name", here(["mlp", "table"], ["mlp"]))
def test_float32_ends_within_1e_6(name: str, row: matrix.Row) -> None:
    matrix.check(name, row)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:_Updates must see every batch")
def test_one_float32_update_of_the_cnn_from_each_of_fifty_states() -> None:
    matrix.check_updates("cnn", ("2 replicas", "micro", "global norm", "adam", "graph", "ragged"))


@pytest.mark.compile
@pytest.mark.parametrize("how", [{"devices": 2}, {"micro_batch_size": 2}], ids=["2 replicas", "micro"])
def test_dense_layer_of_sequences_is_trained_in_parts(how: dict[str, Any]) -> None:
    x = np.random.default_rng(0).normal(size=(16, 6, 4)).astype("float32")
    weights = []
    for given in (dict[str, Any](), how):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((6, 4)), keras.layers.Dense(3)])
        tfmb.fit(model, x, x[..., :3], batch_size=8, optimizer="sgd", loss="mse", verbose=0, seed=1, **given)
        weights.append(model.get_weights()[0])
    np.testing.assert_allclose(weights[1], weights[0], rtol=0, atol=1e-6)


@pytest.mark.compile
def test_convolution_of_a_part_without_rows() -> None:
    # TensorFlow 2.21's convolution of no images has a wrong shape on a CPU.
    def build() -> keras.Model:
        init = keras.initializers.GlorotUniform(1)
        convolution = keras.layers.Conv2D(4, 3, padding="same", kernel_initializer=init)
        head = keras.layers.Dense(2, kernel_initializer=init)
        return keras.Sequential([keras.Input((8, 8, 1)), convolution, keras.layers.Flatten(), head])

    x, y = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype("float32"), np.arange(5) % 2
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    data: dict[str, Any] = {"validation_data": (x[:1], y[:1]), "metrics": ["accuracy"]}
    one, four = (
        tfmb.fit(build, x, y, 4, optimizer=tfmb.optimizers.SGD(0.1), loss=loss, verbose=0, seed=1, devices=n, **data)
        for n in (1, 4)
    )
    for key, values in one.history.items():
        np.testing.assert_allclose(four.history[key], values, rtol=1e-5, err_msg=key)
