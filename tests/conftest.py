"""What every test may ask for. TensorFlow is imported by the tests that use it, and then has four CPU devices."""

import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import budget
import cases
import devices
import hypothesis
import pytest
from mirror import MIRROR

# No test is timed: a busy machine must not fail one.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
devices.make_when_tensorflow_is_imported(4)
pytest_runtest_call = budget.pytest_runtest_call
pytest_runtest_makereport = budget.pytest_runtest_makereport
pytest_terminal_summary = budget.pytest_terminal_summary


@pytest.hookimpl(tryfirst=True)  # before marks are asked for
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Cases of `by_night.txt` are slow; `mnist` is skipped, by name, without its files; `TFMB_PART` takes a part."""
    by_night = set(cases.by_night())
    for item in items:
        if item.nodeid.removeprefix("tests/") in by_night:
            item.add_marker(pytest.mark.slow)
    if part := os.environ.get("TFMB_PART"):
        number, parts = map(int, part.split("/"))
        mine = {item for item in items if zlib.crc32(item.nodeid.encode()) % parts == number % parts}
        config.hook.pytest_deselected(items=[item for item in items if item not in mine])
        items[:] = [item for item in items if item in mine]
    if not MIRROR.is_dir():
        for item in items:
            if item.get_closest_marker("mnist"):
                item.add_marker(pytest.mark.skip(reason=f"no MNIST files in {MIRROR}: set TFMB_MNIST_MIRROR"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With pytest-xdist, all tests of a file run in one process, so that what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFMB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("tfds")))
        patch.delenv("TFMB_MNIST_MIRROR", raising=False)
        yield


@pytest.fixture
def fresh_keras() -> Iterator[None]:
    """Keras begins with seed 0, and ends with no model of the test and its defaults; for tests that build models."""
    from tfmb.backend import keras

    keras.utils.set_random_seed(0)
    yield
    keras.config.set_floatx("float32")
    keras.utils.clear_session(free_memory=False)  # collecting garbage would cost more than the tests


@pytest.fixture(scope="session")
def mnist_mirror() -> Path:
    """The folder of the official files; for tests marked `mnist`."""
    return MIRROR


@pytest.fixture(scope="session")
def digits() -> Any:
    """`tfmb.data.Splits` of scikit-learn's digits."""
    from tfmb.data import load

    return load("digits")


@pytest.fixture(params=[1, 2], ids=["1 replica", "2 replicas"])
def strategy(request: pytest.FixtureRequest) -> Any:
    """The strategy of one device, then of two."""
    from tfmb.distribution import make_strategy

    return make_strategy("auto", request.param)


@pytest.fixture
def two_replicas() -> Any:
    """The strategy of two devices."""
    from tfmb.distribution import make_strategy

    return make_strategy("mirrored", 2)


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A `ForkServer`: calls in new processes, which need not import TensorFlow again."""
    from fork_server import ForkServer

    with ForkServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def commands(fork_server: Any) -> Any:
    """Runs `tfmb` in a new process: `commands("train", "--epochs", "1", cwd=folder)`. See `Commands`."""
    from commands import Commands

    return Commands(fork_server)


@pytest.fixture
def busy_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advice answers however busy the machine is with other tests: for tests of something else."""
    monkeypatch.setattr("tfmb.advice.predictions.TELLS", math.inf)


@pytest.fixture
def same_process() -> Iterator[None]:
    """An export is checked in this process, not in a fresh one: for tests of something else."""
    from exports import checked_here

    with checked_here():
        yield


@pytest.fixture
def float64() -> Iterator[None]:
    """Models, data and losses in 64 bits."""
    from tfmb.backend import keras

    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # which does not follow where a test before has set one
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
