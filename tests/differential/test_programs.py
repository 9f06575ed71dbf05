"""Programs drawn by chance: where `fit` trains, ours trains alike or refuses by name; where it raises, ours raises."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import here

from .judging import FINDINGS
from .ledger import run_seeds
from .report import MOST_REFUSED, refused_share, report
from .server import Server

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("differential")) as started:
        yield started


@pytest.mark.parametrize("first", here(range(0, 200, 5), range(0, 10, 5)))
def test_what_fit_trains_tfmb_fit_trains(first: int, server: Server, tmp_path: Path) -> None:
    lines = list(run_seeds(server, range(first, first + 5), tmp_path / "ledger", together=5))
    found = [line for line in lines if line["whole"] in FINDINGS or line["cut"] in FINDINGS]
    assert not found, report(found)
    assert refused_share(lines) <= max(MOST_REFUSED, 1 / 5), report(lines)
