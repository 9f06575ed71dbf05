"""The same bits as `training/test_bits.py`, for five seeds, workers included, on MNIST where it is there."""

import pytest
from mirror import MIRROR

from benchmarks.bits import DEVICES, cases, digest, worker_digests


@pytest.fixture(autouse=True)
def _mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    if MIRROR.is_dir():
        monkeypatch.setenv("TFMB_MNIST_MIRROR", str(MIRROR))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", cases())
def test_devices_and_workers(name: str, seed: int) -> None:
    dataset = "mnist" if MIRROR.is_dir() else "digits"
    found = {f"{devices} devices": digest(name, seed, 300, dataset, devices=devices) for devices in DEVICES}
    found["2 workers"] = worker_digests(name, seed, 300, dataset, workers=2)
    assert len(set(found.values())) == 1, found
