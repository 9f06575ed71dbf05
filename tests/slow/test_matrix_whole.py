"""The whole invariance matrix; a test is all sizes of a row, which share what is traced and compiled."""

import matrix
import pytest

WITHOUT_SIZES = list(dict.fromkeys(row[:5] for row in matrix.product()))
every_row = pytest.mark.parametrize("row", WITHOUT_SIZES, ids=", ".join)
SIZES = list(matrix.SIZES)


@pytest.mark.usefixtures("float64")
@every_row
@pytest.mark.parametrize("name", ["mlp", "table", "sequences"])
def test_float64_ends_like_whole_batches_on_one_replica(name: str, row: matrix.Row) -> None:
    matrix.check(name, (*row, "even"), SIZES)


@every_row
@pytest.mark.parametrize("name", ["mlp", "table"])
def test_float32_ends_within_1e_6(name: str, row: matrix.Row) -> None:
    matrix.check(name, (*row, "even"), SIZES)


@pytest.mark.usefixtures("float64")
@every_row
def test_cnn_ends_like_whole_batches_on_one_replica(row: matrix.Row) -> None:
    matrix.check("cnn", (*row, "even"), SIZES)


@pytest.mark.filterwarnings("ignore:_Updates must see every batch")
@pytest.mark.parametrize("row", matrix.product(), ids=", ".join)
def test_one_float32_update_of_the_cnn_from_each_of_fifty_states(row: matrix.Row) -> None:
    matrix.check_updates("cnn", row)
