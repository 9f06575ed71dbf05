"""One all-reduce an update: what replicas tell each other stands in the traced graph."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from steps import steps_of

from tfmb.backend import keras, tf
from tfmb.distribution import adds_up_on_one_device, collectives, make_strategy
from tfmb.optimizers import Adam
from tfmb.training.keras_api.compile_args import LossAndMetrics
from tfmb.training.step.partition import make_partition

RECIPE = LossAndMetrics(loss="mse", metrics=["mae"])


def batches() -> Any:
    x = np.ones((8, 4), np.float32)
    return iter(tf.data.Dataset.from_tensors((x, x[:, :1], ())).repeat())


def traced(strategy: Any, parts: Any) -> Any:
    """The graph of the updates of a model with regularisers, BatchNorm and clipping: all that might reduce again."""
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(8, kernel_regularizer="l2"),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(1),
            ]
        )
    optimizer = Adam(global_clipnorm=1.0)
    partition = make_partition(strategy.num_replicas_in_sync, parts, None, 8)
    steps = steps_of(model, optimizer, strategy, loss="mse", partition=partition)
    drawn = batches()
    steps.prepare(drawn.element_spec)
    return steps._train_function.get_concrete_function(drawn, tf.constant(1)).graph


def operations(graph: Any) -> Counter[str]:
    """How often each operation stands in a graph and the functions that it calls."""
    whole = graph.as_graph_def()
    nodes = [*whole.node, *(node for function in whole.library.function for node in function.node_def)]
    return Counter(node.op for node in nodes)


@pytest.mark.compile
@pytest.mark.parametrize("parts", ["auto", 4])
def test_a_collective_has_one_packed_node_a_replica(parts: Any) -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert not adds_up_on_one_device(strategy)
    found = operations(traced(strategy, parts))
    assert {name: count for name, count in found.items() if name.startswith("Collective")} == {"CollectiveReduceV2": 2}


@pytest.mark.compile
@pytest.mark.parametrize("parts", ["auto", 4])
@pytest.mark.parametrize("replicas", [2, 4])
def test_our_code_reduces_once_an_update(replicas: int, parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []  # each replica is traced by a thread of its own

    def counts(name: str) -> Any:
        inner = getattr(collectives, name)

        def counted(*args: Any) -> Any:
            calls.append(name)
            return inner(*args)

        return counted

    for name in ("sum_up", "gather"):
        monkeypatch.setattr(collectives, name, counts(name))
    traced(make_strategy("mirrored", replicas), parts)
    assert len(calls) == replicas, calls
    assert set(calls) == {"gather" if parts == 4 and replicas > 2 else "sum_up"}


@pytest.mark.parametrize("devices", ["one", "collective"])
def test_replicas_add_up_and_gather(devices: str) -> None:
    where = make_strategy("mirrored", 2) if devices == "one" else tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    @tf.function
    def both() -> Any:
        def on_replica() -> Any:
            own = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
            return collectives.sum_up([own + 1.0, tf.stack([own, 10.0])]), collectives.gather(tf.stack([[own, 5.0]]))

        return where.run(on_replica)

    (total, row), table = both()
    for value, right in ((total, 3.0), (row, [1.0, 20.0]), (table, [[0.0, 5.0], [1.0, 5.0]])):
        found = where.experimental_local_results(value)  # one, where both have the same tensor
        assert [copy.numpy().tolist() for copy in found] == [right] * len(found)
