"""Every planted fault can be planted: what it replaces stands in its file once, and its tests are there."""

import pytest

from mutations.planted import BY_HAND, DRAWN, Mutation
from mutations.run import ROOT


@pytest.mark.parametrize("mutation", [*BY_HAND, *DRAWN], ids=lambda mutation: mutation.name)
def test_it_can_be_planted(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.old) == 1
    assert (ROOT / mutation.near).exists()
