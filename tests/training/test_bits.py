"""The same bits on 1, 2 and 4 devices and on 2 worker processes: weights, state and slots after hundreds of updates."""

import pytest
from cases import here

from benchmarks.bits import DEVICES, digest, worker_digests

# A part of them, for their time: slow/test_bits_of_seeds.py makes 300 of every case with five seeds.
UPDATES = {"cnn-adam-augmented": 150, "resnet-momentum": 90, "table-sgd-clipped": 300}


@pytest.mark.compile
@pytest.mark.parametrize("name", here(UPDATES, ["cnn-adam-augmented", "table-sgd-clipped"]))
def test_devices(name: str) -> None:
    found = {devices: digest(name, 0, UPDATES[name], devices=devices) for devices in DEVICES}
    assert len(set(found.values())) == 1, found


@pytest.mark.process
def test_workers() -> None:
    name = "cnn-adam-augmented"
    assert worker_digests(name, 0, 30, "digits", workers=2) == digest(name, 0, 30, devices=1)


@pytest.mark.compile
def test_another_seed_has_other_bits() -> None:
    assert digest("table-sgd-clipped", 0, 15) != digest("table-sgd-clipped", 1, 15)
