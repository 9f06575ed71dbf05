"""Strategies from names, logical devices, and one-line refusals."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import tfmb
from tfmb.backend import keras, tf
from tfmb.choices import STRATEGY_NAMES
from tfmb.distribution import configure_replicas, describe, is_chief, make_local_strategy, make_strategy
from tfmb.distribution.multi_worker import is_first_worker
from tfmb.errors import ConfigError

pytestmark = pytest.mark.usefixtures("fresh_keras")

OneDevice, Mirrored = tf.distribute.OneDeviceStrategy, tf.distribute.MirroredStrategy


@pytest.mark.parametrize(
    ("strategy", "replicas", "kind", "count"),
    [
        ("auto", None, OneDevice, 1),
        ("auto", 1, OneDevice, 1),
        ("auto", 2, Mirrored, 2),
        ("one-device", None, OneDevice, 1),
        ("one-device", 1, OneDevice, 1),
        ("mirrored", None, Mirrored, 4),
        ("mirrored", 1, Mirrored, 1),
        ("mirrored", 3, Mirrored, 3),
    ],
)
def test_names(strategy: str, replicas: int | None, kind: Any, count: int) -> None:
    made = make_strategy(strategy, replicas)
    assert type(made) is kind
    assert made.num_replicas_in_sync == count


def test_strategies_are_taken_as_they_are() -> None:
    for given in (OneDevice("/cpu:0"), make_strategy("mirrored", 2), tf.distribute.get_strategy()):
        assert make_strategy(given) is given
        assert make_strategy(given, given.num_replicas_in_sync) is given


@pytest.mark.parametrize(
    ("strategy", "replicas", "words"),
    [
        ("multi", None, "'multi'"),
        ("Mirrored", None, "'Mirrored'"),
        (None, None, "None"),
        (3, None, "3"),
        ("auto", 0, "devices=0"),
        ("auto", -1, "devices=-1"),
        ("auto", True, "devices=True"),
        ("auto", "2", "devices='2'"),
        ("one-device", 2, "'one-device' has one device, not 2"),
        ("auto", 5, "4 logical CPU device(s), too late to make 5"),
        ("mirrored", 5, "too late to make 5"),
        (OneDevice("/cpu:0"), 2, "devices=2, but the strategy given has 1"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(strategy: Any, replicas: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_strategy(strategy, replicas)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    if strategy in ("multi", None):
        assert all(name in str(caught.value) for name in STRATEGY_NAMES)


def test_other_strategies_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"\ACentralStorageStrategy is not supported[^\n]*\Z"):
        make_strategy(tf.distribute.experimental.CentralStorageStrategy(["/cpu:0"]))


def test_two_numbers_of_replicas_work_in_one_process() -> None:
    # Collectives between logical devices would abort here; the strategies must not use them.
    for replicas in (2, 4, 2):
        strategy = make_strategy("mirrored", replicas)

        @tf.function
        def total(where: Any) -> Any:
            return where.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", tf.constant([1.0, 2.0])))

        for found in strategy.experimental_local_results(total(strategy)):
            assert found.numpy().tolist() == [replicas, 2 * replicas]


class OfCluster(tf.distribute.MultiWorkerMirroredStrategy):
    """A strategy as far as it is asked here: a real one would wait for the others."""

    def __init__(self, jobs: dict[str, int], task: tuple[str, int]) -> None:
        spec = tf.train.ClusterSpec({job: [f"127.0.0.1:{n + 1}" for n in range(count)] for job, count in jobs.items()})
        self._resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec, task_type=task[0], task_id=task[1])

    @property
    def cluster_resolver(self) -> Any:
        return self._resolver


@pytest.mark.parametrize(
    ("jobs", "first"),
    [({"worker": 2}, ("worker", 0)), ({"chief": 1, "worker": 2}, ("chief", 0))],
    ids=["workers", "chief"],
)
def test_one_process_of_a_cluster_is_the_chief(
    jobs: dict[str, int], first: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_first_worker()
    cluster = {job: [f"127.0.0.1:{n + 1}" for n in range(count)] for job, count in jobs.items()}
    for task in [(job, index) for job, count in jobs.items() for index in range(count)]:
        assert is_chief(OfCluster(jobs, task)) == (task == first)
        config = {"cluster": cluster, "task": {"type": task[0], "index": task[1]}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        assert is_first_worker() == (task == first)


@pytest.mark.parametrize(
    "garbage", ["{", "[]", '{"cluster": 1}', '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {}}']
)
def test_an_environment_that_no_worker_has_is_no_other_workers(garbage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", garbage)
    assert is_first_worker()


WORKERS = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}


def of_task(cluster: Any, job: str, index: Any) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "TF_CONFIG is not as TensorFlow wants it"),
        (json.dumps({"cluster": WORKERS}), "TF_CONFIG is not as TensorFlow wants it ('task')"),
        (of_task(WORKERS, "worker", "x"), "TF_CONFIG is not as TensorFlow wants it"),
        (of_task(WORKERS, "worker", 2), "TF_CONFIG makes this process worker 2, but its cluster has 2 of this kind"),
        (of_task(WORKERS, "worker", -1), "TF_CONFIG makes this process worker -1, but its cluster has 2"),
        (of_task(WORKERS, "chief", 0), "TF_CONFIG makes this process chief 0, but its cluster has 0"),
        (of_task({**WORKERS, "evaluator": ["a:1"]}, "evaluator", 0), "process evaluator 0, which takes no part"),
        (of_task({**WORKERS, "ps": ["a:1"]}, "ps", 0), "makes this process ps 0, which takes no part"),
        (of_task(WORKERS, "worker", 0), 'names 2 worker(s), but TensorFlow has started already, too late to join'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("strategy", ["auto", "multi-worker"])
def test_bad_cluster_is_refused_and_never_trained_alone(
    strategy: str, config: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    tf.constant(0)  # TensorFlow has started
    with pytest.raises(ConfigError) as caught:
        make_strategy(strategy)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strategy", ["auto", "multi-worker"])
def test_strategy_joins_the_workers_of_the_environment(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = make_strategy("one-device")
    monkeypatch.setattr("tfmb.distribution.strategy.multi_worker_strategy", lambda: joined)
    monkeypatch.setenv("TF_CONFIG", of_task(WORKERS, "worker", 1))
    assert make_strategy(strategy) is joined
    assert make_strategy("mirrored", 2) is not joined
    assert make_strategy("auto", joins=False) is not joined


@pytest.mark.parametrize(
    "config", ["", "{}", '{"environment": "cloud"}', of_task({"chief": ["a:1"]}, "chief", 0), '{"cluster": {}}']
)
def test_one_process_is_no_cluster(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    assert type(make_strategy()) is OneDevice


def test_what_works_alone_refuses_several_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(make_local_strategy()) is OneDevice
    with pytest.raises(ConfigError, match="a search works in one process, not with several workers"):
        make_local_strategy("multi-worker", what="a search")
    monkeypatch.setenv("TF_CONFIG", of_task(WORKERS, "worker", 1))
    with pytest.raises(ConfigError, match="TF_CONFIG names 2 workers, but a search works in one process"):
        make_local_strategy(what="a search")
    given: dict[str, Any] = {"x": np.zeros((4, 2)), "y": np.zeros(4)}
    for function in (tfmb.advise, tfmb.lr_range, tfmb.tune):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        with pytest.raises(ConfigError, match="TF_CONFIG names 2 workers"):
            function(model if function is tfmb.lr_range else lambda *_: None, **given)


def test_describe() -> None:
    assert describe(make_strategy("one-device")) == {
        "name": "OneDeviceStrategy",
        "replicas": 1,
        "devices": ["CPU:0"],
    }
    found = describe(make_strategy("mirrored", 2))
    assert found == {"name": "MirroredStrategy", "replicas": 2, "devices": ["CPU:0", "CPU:1"]}
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("replicas", [0, -2, True, 1.5, "2", None])
def test_number_that_makes_no_sense_is_refused(replicas: Any) -> None:
    with pytest.raises(ConfigError, match=rf"\Areplicas={replicas!r} must be an integer of at least 1\Z"):
        configure_replicas(replicas)


def test_configuring_what_there_is_already_is_no_error() -> None:
    configure_replicas(4)
    with pytest.raises(ConfigError, match=r"\A[^\n]*4 logical CPU device\(s\), too late to make 2[^\n]*\Z"):
        configure_replicas(2)
    assert tfmb.configure_replicas is configure_replicas


_FRESH = """
import json
from tfmb.backend import tf
from tfmb.distribution import configure_replicas, make_strategy
from tfmb.errors import ConfigError

found = {"auto": make_strategy("auto", 3).num_replicas_in_sync, "devices": len(tf.config.list_logical_devices("CPU"))}
found["fewer"] = make_strategy("auto", 2).num_replicas_in_sync
try:
    configure_replicas(8)
except ConfigError as error:
    found["late"] = str(error)
print(json.dumps(found))
"""


@pytest.mark.process
def test_devices_are_made_in_a_fresh_process_and_not_too_late() -> None:
    done = subprocess.run([sys.executable, "-c", _FRESH], capture_output=True, text=True, timeout=100, check=True)
    found = json.loads(done.stdout)
    late = found.pop("late")
    assert found == {"auto": 3, "devices": 3, "fewer": 2}
    assert "\n" not in late
    assert "3 logical CPU device(s), too late to make 8: call tfmb.configure_replicas(8) first" in late
