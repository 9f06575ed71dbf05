"""The exceptions: what they are and what the command line exits with."""

import pytest

from tfmb import errors
from tfmb.errors import (
    ConfigError,
    DataError,
    DirectoryError,
    DivergenceError,
    PeerLostError,
    PreemptedError,
    StorageError,
    TfmbError,
)

EXIT_CODES: dict[type[TfmbError], int] = {
    TfmbError: 2,
    ConfigError: 2,
    DivergenceError: 3,
    DataError: 65,
    PeerLostError: 69,
    DirectoryError: 73,
    StorageError: 74,
    PreemptedError: 75,
}


def test_every_public_error_has_its_exit_code() -> None:
    assert {getattr(errors, name).exit_code for name in errors.__all__} == {2, 3, 65, 69, 73, 74, 75}
    assert {getattr(errors, name) for name in errors.__all__} == set(EXIT_CODES)
    for error, code in EXIT_CODES.items():
        assert error.exit_code == code, error.__name__


@pytest.mark.parametrize("error", EXIT_CODES, ids=lambda error: error.__name__)
def test_every_error_is_a_value_error_that_one_clause_catches(error: type[TfmbError]) -> None:
    assert issubclass(error, TfmbError)
    assert issubclass(error, ValueError)


def test_a_divergence_says_where_the_run_stood() -> None:
    error = DivergenceError("the loss became nan", update=7, learning_rate=0.5, last_loss=None)
    assert str(error) == "the loss became nan"
    assert (error.update, error.learning_rate, error.last_loss) == (7, 0.5, None)
    assert error.exit_code == 3
