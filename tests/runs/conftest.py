"""Tests here build Keras models."""

import pytest


@pytest.fixture(autouse=True)
def _keras_as_new(fresh_keras: None) -> None:
    """See `fresh_keras`."""
