"""The whole invariance matrix, on the multi-layer perceptron."""

import matrix
import pytest


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("row", matrix.product(), ids=", ".join)
def test_mlp_ends_like_whole_batches_on_one_replica(row: matrix.Row) -> None:
    matrix.check("mlp", row)
