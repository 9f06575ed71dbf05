"""The same search in this process, in processes, in a pool, and on Dask, Ray and submitit, whoever is killed."""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

import tfmb
from tfmb.backend import keras
from tfmb.errors import PeerLostError
from tfmb.tuning.result import SearchResult

SEARCH: dict[str, Any] = {"learning_rate": (1e-3, 1.0), "batch_size": (32, 128), "seed": 3, "epochs": 2}
Given = contextlib.AbstractContextManager[dict[str, Any]]


@contextlib.contextmanager
def processes(folder: Path) -> Iterator[dict[str, Any]]:
    yield {"workers": 2}


@contextlib.contextmanager
def pool(folder: Path) -> Iterator[dict[str, Any]]:
    with futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as found:
        yield {"executor": found}


@contextlib.contextmanager
def dask(folder: Path) -> Iterator[dict[str, Any]]:
    distributed = pytest.importorskip("distributed")
    given = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**given) as cluster, distributed.Client(cluster) as client:
        yield {"executor": client}


@contextlib.contextmanager
def on_ray(folder: Path) -> Iterator[dict[str, Any]]:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield {"executor": ray}
    finally:
        ray.shutdown()


@contextlib.contextmanager
def submitit_here(folder: Path) -> Iterator[dict[str, Any]]:
    submitit = pytest.importorskip("submitit")
    yield {"executor": submitit.LocalExecutor(folder=folder / "jobs"), "workers": 2}


ENGINES = [processes, pool, dask, on_ray, submitit_here]


@pytest.fixture(autouse=True)
def _same_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of another engine finds the modules that this process finds."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))


def builder(folder: Path, dies: int = 0) -> Callable[[Any], Any]:
    """A `build` by value; of the processes that call it, but not of this one, the first `dies` are killed in it."""
    chief = os.getpid()

    def build(hp: Any) -> Any:
        for number in range(dies) if os.getpid() != chief else ():
            try:
                (folder / f"died-{number}").open("x").close()
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        hidden = keras.layers.Dense(hp.Choice("units", [16, 32]), "relu")
        model = keras.Sequential([keras.Input((64,)), keras.layers.Rescaling(1 / 16), hidden, keras.layers.Dense(10)])
        model.compile(None, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        return model

    return build


def tune(build: Callable[[Any], Any], **given: Any) -> SearchResult:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return tfmb.tune(build, x.astype("float32"), y, **{**SEARCH, **given})


def rows(result: SearchResult) -> list[Any]:
    """All of the trials but their times."""
    looks = [[(look.slice, look.updates, look.metrics) for look in trial.history] for trial in result.trials]
    return [(t.trial, t.values, t.fate, t.score, look) for t, look in zip(result.trials, looks, strict=True)]


RANDOM: dict[str, Any] = {"oracle": "random", "max_trials": 20}
ROUNDS: dict[str, Any] = {"oracle": "bayesian", "max_trials": 13, "round_size": 2}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What one process comes to."""
    build = builder(tmp_path_factory.mktemp("alone"))
    return {"random": rows(tune(build, **RANDOM)), "bayesian": rows(tune(build, **ROUNDS))}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("search", [RANDOM, ROUNDS], ids=["random", "bayesian in rounds"])
def test_a_search_has_the_same_trials_to_the_bit_wherever_they_run(
    search: dict[str, Any], engine: Callable[[Path], Given], alone: dict[str, list[Any]], tmp_path: Path
) -> None:
    with engine(tmp_path) as given:
        found = tune(builder(tmp_path), **search, **given, run_dir=tmp_path / "s")
    assert rows(found) == alone[search["oracle"]]
    assert not list(tmp_path.glob("s/**/*.pickle"))


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine is not pool])
@pytest.mark.parametrize("dies", [1, 2])
def test_a_search_whose_workers_are_killed_comes_to_the_same_trials(
    dies: int, engine: Callable[[Path], Given], alone: dict[str, list[Any]], tmp_path: Path
) -> None:
    with engine(tmp_path) as given:
        found = tune(builder(tmp_path, dies), **RANDOM, **given, run_dir=tmp_path / "s")
    assert len(list(tmp_path.glob("died-*"))) == dies
    assert rows(found) == alone["random"]


def test_a_pool_that_broke_ends_the_search_in_one_line_and_the_same_call_goes_on(
    alone: dict[str, list[Any]], tmp_path: Path
) -> None:
    with pool(tmp_path) as given, pytest.raises(PeerLostError, match=r"^the executor takes no more tasks") as ended:
        tune(builder(tmp_path, 1), **RANDOM, **given, run_dir=tmp_path / "s")
    assert "\n" not in str(ended.value)
    with pool(tmp_path) as given:
        found = tune(builder(tmp_path, 1), **RANDOM, **given, run_dir=tmp_path / "s")
    assert rows(found) == alone["random"]
