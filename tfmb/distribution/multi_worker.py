"""The strategy of several worker processes, and a clear error when one of them is lost."""

import contextlib
import functools
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from typing import Any

from tfmb.backend import tf
from tfmb.distribution.rendezvous import Cluster, join_seconds, meet
from tfmb.errors import ConfigError, PeerLostError
from tfmb.types import Strategy

__all__ = ["is_first_worker", "multi_worker_strategy", "naming_lost_peers", "workers_of_environment"]

_JOBS = ("chief", "worker")


def workers_of_environment() -> int:
    """Returns the number of processes of `TF_CONFIG`, this one among them; 1 if it is not set.

    A `TF_CONFIG` without a cluster, as some platforms give a single machine, is one process too.

    Raises:
        ConfigError: it is not as TensorFlow wants it, or this process has no part in the training: it is an
            evaluator, a parameter server, or a worker that the cluster does not have.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return 1
    try:
        config = json.loads(text)
        cluster = config.get("cluster") or {}
        sizes = {job: len(tasks) for job, tasks in cluster.items()}
        if sum(sizes.values()) == 0:
            return 1
        job, index = config["task"]["type"], int(config["task"]["index"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"TF_CONFIG is not as TensorFlow wants it ({error}): give cluster and task, or start the workers with "
            "`tfmb launch`"
        ) from error
    workers = sum(sizes.get(name, 0) for name in _JOBS)
    if job not in _JOBS:
        raise ConfigError(
            f"TF_CONFIG makes this process {job} {index}, which takes no part in a training of tfmb: start it as a "
            "chief or a worker (they validate too), or unset TF_CONFIG"
        )
    if not 0 <= index < sizes.get(job, 0):
        raise ConfigError(
            f"TF_CONFIG makes this process {job} {index}, but its cluster has {sizes.get(job, 0)} of this kind, "
            "numbered from 0: give a task.index below that number"
        )
    return workers


def multi_worker_strategy() -> Any:
    """A strategy of every worker of `TF_CONFIG`, or else of the Slurm job.

    TensorFlow's server listens on every interface.

    Raises:
        ConfigError: there is no such cluster, or TensorFlow has started too early.
        PeerLostError: a worker did not join in time, or this worker's port is taken.
    """
    if text := os.environ.get("TF_CONFIG"):
        workers = workers_of_environment()
        if not _names_workers(text):
            raise ConfigError("TF_CONFIG names no worker: give cluster.worker, or use `tfmb launch`")
        if _strategy_of_cluster.cache_info().currsize == 0 and _tensorflow_has_started():
            raise ConfigError(
                f"TF_CONFIG names {workers} worker(s), but TensorFlow has started already, too late to join them: call "
                'strategy = tfmb.distribution.make_strategy("multi-worker") first, before any model is built'
            )
        return _strategy_of_cluster(text)
    if "SLURM_PROCID" in os.environ:
        return _strategy_of_cluster(None)
    raise ConfigError(
        "strategy 'multi-worker' needs TF_CONFIG or a Slurm job: start the workers with `tfmb launch`, or give a "
        "MultiWorkerMirroredStrategy with the resolver of your cluster"
    )


def _names_workers(tf_config: str) -> bool:
    return any((json.loads(tf_config).get("cluster") or {}).get(job) for job in _JOBS)


def _tensorflow_has_started() -> bool:
    """Whether TensorFlow has made its devices, after which it takes no settings and joins no workers."""
    threads = tf.config.threading.get_inter_op_parallelism_threads()
    try:
        tf.config.threading.set_inter_op_parallelism_threads(threads + 1)
    except RuntimeError:
        return True
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return False


_met: list[Any] = []  # the resolver of the cluster that this process is part of, once it met the others


@functools.cache
def _strategy_of_cluster(tf_config: str | None) -> Any:
    """The one strategy of this process: its server stays, so that it cannot meet the others a second time."""
    resolvers = tf.distribute.cluster_resolver
    resolver = resolvers.SlurmClusterResolver() if tf_config is None else resolvers.TFConfigClusterResolver()
    cluster = _cluster_of(resolver)
    if cluster is not None:
        meet(cluster, join_seconds())
    _met.append(resolver)
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.AUTO
    )
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with _naming_lost_peers(cluster):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver, communication_options=options)
    # TensorFlow's server takes this signal and does nothing with it: the worker could not be ended.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm or signal.SIG_DFL)
    return strategy


def is_first_worker() -> bool:
    """Whether this process may write what all workers have: it is the first of them, or there are no others.

    They are those that it met to train, else those of `TF_CONFIG`.
    """
    try:
        resolver = _met[-1] if _met else tf.distribute.cluster_resolver.TFConfigClusterResolver()
        cluster = _cluster_of(resolver)
    except (ValueError, KeyError, TypeError, AttributeError):
        return True  # no worker could be started with such a TF_CONFIG
    return cluster is None or cluster.rank == 0


def _cluster_of(resolver: Any) -> Cluster | None:
    """Returns the workers that train together; None if this process is not one of several in a cluster."""
    spec = resolver.cluster_spec() if resolver is not None else None
    if not spec:
        return None
    named = [
        (f"{job} {index}", spec.task_address(job, index))
        for job in _JOBS
        if job in spec.jobs
        for index in spec.task_indices(job)
    ]
    names = tuple(name for name, _ in named)
    own = f"{resolver.task_type} {resolver.task_id}"
    if own not in names:
        return None
    return Cluster(names=names, addresses=tuple(address for _, address in named), rank=names.index(own))


@contextlib.contextmanager
def naming_lost_peers(strategy: Strategy, advice: str = "") -> Iterator[None]:
    """Turns TensorFlow's error about a lost worker into one that names it, if several workers train.

    Args:
        strategy: the strategy that the block trains under.
        advice: words to end the message with.

    Raises:
        PeerLostError: from TensorFlow's error.
    """
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    cluster = _cluster_of(strategy.cluster_resolver) if several else None
    with _naming_lost_peers(cluster, advice):
        yield


@contextlib.contextmanager
def _naming_lost_peers(cluster: Cluster | None, advice: str = "") -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        if cluster is None or not _tells_of_peers(error):
            raise
        who, reason = _who_was_lost(cluster, str(error)), _reason(str(error))
        raise PeerLostError(f"lost {who} ({reason}): start all workers again{advice}") from error


# Users' own files and datasets raise the same classes: the words tell them apart.
_ABORTED = "Collective ops is aborted by: "
_CODES = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError, tf.errors.CancelledError)


def _tells_of_peers(error: Exception) -> bool:
    text = str(error)
    # While workers start TensorFlow raises the second as an internal error.
    if _ABORTED in text or ("Barrier failed because" in text and "CoordinationService" in text):
        return True
    words = ("Collective", "CoordinationService", "remote target /job:")
    return isinstance(error, _CODES) and any(word in text for word in words)


def _reason(text: str) -> str:
    if "heartbeat" in text.lower():
        return "no heartbeat"
    # A worker passes on what its neighbour said: the last of them is the cause.
    first = text.rpartition(_ABORTED)[2].strip().splitlines()[:1]
    return first[0][:150] if first else "no answer"


def _who_was_lost(cluster: Cluster, text: str) -> str:
    """Returns the workers that TensorFlow says hang, else those on whose port nobody listens."""
    reported = _ranks(cluster, re.findall(r"reported from /job:(\w+)/(?:replica:\d+/)?task:(\d+)", text))
    if reported:
        return cluster.describe(reported)
    if cluster.rank and re.search(r"Coordination ?Service", text, re.IGNORECASE):
        return cluster.describe([0])  # which keeps the list of those who live
    lost = cluster.unreachable() or _ranks(cluster, re.findall(r"target /job:(\w+)/(?:replica:\d+/)?task:(\d+)", text))
    return cluster.describe(lost) if lost else f"one of {cluster.describe(cluster.others)}"


def _ranks(cluster: Cluster, tasks: list[tuple[str, str]]) -> list[int]:
    said = {f"{job} {index}" for job, index in tasks}
    return [rank for rank in cluster.others if cluster.names[rank] in said]
