"""Every optimizer is stopped after every update, and twenty runs change their devices. Minutes long."""

import itertools
import random
from pathlib import Path

import pytest
from stopped_runs import BATCHES, EPOCHS, RULES, StopAfter, check_every_stop, check_other_devices

# (devices before, devices after, updates after which they change): twenty of all there are.
MOVES = [
    (before, after, updates)
    for before, after in itertools.permutations((1, 2, 4), 2)
    for updates in range(EPOCHS * BATCHES)
]


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> StopAfter:
    return StopAfter(monkeypatch)


@pytest.mark.parametrize("replicas", [1, 2], ids=["1 replica", "2 replicas"])
@pytest.mark.parametrize("rule", RULES)
def test_every_update_of_two_epochs_as_a_stopping_point(
    tmp_path: Path, stop: StopAfter, rule: str, replicas: int
) -> None:
    check_every_stop(tmp_path, stop, rule, replicas)


def test_twenty_changes_of_devices(tmp_path: Path, stop: StopAfter) -> None:
    check_other_devices(tmp_path, stop, {"virtual_replicas": 4}, random.Random(0).sample(MOVES, 20))
