"""A `tf.distribute` strategy from a name, and logical CPU devices to try replicas on any machine."""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

from tfmb.backend import tf
from tfmb.choices import STRATEGY_NAMES, check_counts
from tfmb.distribution.multi_worker import multi_worker_strategy, workers_of_environment
from tfmb.errors import ConfigError
from tfmb.types import Strategy

__all__ = [
    "adds_up_on_one_device",
    "configure_replicas",
    "describe",
    "is_chief",
    "is_multi_worker",
    "is_on_cpu",
    "make_cpu_devices",
    "make_local_strategy",
    "make_strategy",
    "makes_copies",
    "needs_static_shapes",
    "outside_of_scopes",
    "steps_a_call",
]


def configure_replicas(replicas: int) -> None:
    """Makes `replicas` logical CPU devices, so that replicas can be tried without a GPU.

    Call it before anything makes TensorFlow start, such as building a model. They share the machine's cores: more
    of them show that an answer does not depend on the number of devices; they do not make it come sooner.

    Args:
        replicas: the number of devices, at least 1.

    Raises:
        ConfigError: TensorFlow has started with another number of devices.

    Example:
        >>> tfmb.configure_replicas(4)  # first of all
        >>> history = tfmb.fit(model, x, y, devices=4, verbose=0)
    """
    check_counts(replicas=replicas)
    cpu = tf.config.list_physical_devices("CPU")[0]
    wanted = [tf.config.LogicalDeviceConfiguration()] * replicas
    try:
        tf.config.set_logical_device_configuration(cpu, wanted)
    except RuntimeError as error:
        found = len(tf.config.list_logical_devices("CPU"))
        if found != replicas:
            raise ConfigError(
                f"TensorFlow has started with {found} logical CPU device(s), too late to make {replicas}: "
                f"call tfmb.configure_replicas({replicas}) first, before any model is built"
            ) from error


def make_strategy(strategy: Strategy = "auto", devices: int | None = None, joins: bool = True) -> Any:
    """Returns the `tf.distribute.Strategy` of a name.

    Args:
        strategy: `"auto"` (every worker where `TF_CONFIG` names several; else every GPU; without one, `devices`
            logical CPU devices, or one device), `"one-device"`,
            `"mirrored"` (every GPU, or every logical CPU device), `"multi-worker"` (every worker of `TF_CONFIG`, or of
            the Slurm job; make it before TensorFlow starts: before any model is built), `"tpu"` (the one that
            `TPU_NAME` or the environment names), or a `tf.distribute.Strategy`, taken unchanged.
        devices: the number of these devices; None for all of them, or for one CPU with `"auto"`.
        joins: whether `"auto"` may be the workers of `TF_CONFIG`.

    Returns:
        The strategy.

    Raises:
        ConfigError: an unknown name, a strategy that is not supported, or more devices than there are.
        PeerLostError: a worker did not join in time, or this worker's port is taken.
    """
    check_counts(optional=True, devices=devices)
    if isinstance(strategy, tf.distribute.Strategy):
        return _check_given(strategy, devices)
    if strategy not in STRATEGY_NAMES:
        raise ConfigError(
            f"unknown strategy {strategy!r}: give {', '.join(STRATEGY_NAMES)} or a tf.distribute.Strategy"
        )
    if strategy == "one-device" and devices not in (None, 1):
        raise ConfigError(f"strategy 'one-device' has one device, not {devices}: give strategy='mirrored'")
    if strategy == "multi-worker" or (joins and strategy == "auto" and workers_of_environment() > 1):
        return _check_given(multi_worker_strategy(), devices)
    if strategy == "tpu":
        return _check_given(_tpu(), devices)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # it has started already, with what it was told then
            tf.config.experimental.set_memory_growth(gpu, True)
    if strategy == "one-device" or (strategy == "auto" and (devices == 1 or (not gpus and devices is None))):
        return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
    return _mirrored("GPU" if gpus else "CPU", devices)


def make_local_strategy(strategy: Strategy = "auto", devices: int | None = None, what: str = "this") -> Any:
    """Returns a strategy, as `make_strategy`, for the work of one process alone.

    Args:
        strategy: as in `make_strategy`.
        devices: as in `make_strategy`.
        what: the action, in words.

    Raises:
        ConfigError: as `make_strategy`; or several workers are asked for, or named by `TF_CONFIG`.
    """
    if strategy == "multi-worker" or is_multi_worker(strategy):
        raise ConfigError(f"{what} works in one process, not with several workers: give another strategy")
    if strategy == "auto" and (workers := workers_of_environment()) > 1:
        raise ConfigError(
            f"TF_CONFIG names {workers} workers, but {what} works in one process: start it without `tfmb launch`, or "
            "unset TF_CONFIG"
        )
    return make_strategy(strategy, devices, joins=False)


def is_chief(strategy: Strategy) -> bool:
    """Whether this process is the one that writes: the first worker, or the only one."""
    resolver = strategy.cluster_resolver
    if not is_multi_worker(strategy) or resolver is None:
        return True
    if not resolver.task_type:
        return True
    if resolver.task_type == "chief" or "chief" in resolver.cluster_spec().jobs:
        return resolver.task_type == "chief"  # beside a chief the first worker is not it
    return resolver.task_type == "worker" and resolver.task_id == 0


def is_on_cpu(strategy: Strategy) -> bool:
    """Whether the devices' memory is this host's, so that it has room for what the host holds already."""
    devices = describe(strategy)["devices"]
    return not is_multi_worker(strategy) and all("CPU" in device.upper() for device in devices)


def is_multi_worker(strategy: Strategy) -> bool:
    """Whether several processes train together."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def adds_up_on_one_device(strategy: Strategy) -> bool:
    """Whether a reduction copies all to one device and adds there, as ours on CPUs; otherwise it is a collective."""
    ops = getattr(strategy.extended, "_cross_device_ops", None)
    return isinstance(ops, tf.distribute.ReductionToOneDevice)


def steps_a_call(strategy: Strategy) -> int | None:
    """Returns the updates of a call: fixed among several workers, else None for as many as suit."""
    return 10 if is_multi_worker(strategy) else None


def makes_copies(strategy: Strategy) -> bool:
    """Whether a variable has a copy on each of several devices, so that it must be made in the strategy's scope."""
    kinds = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy, tf.distribute.TPUStrategy)
    return isinstance(strategy, kinds)


def needs_static_shapes(strategy: Strategy) -> bool:
    """Whether the strategy's devices run nothing but programs of static shapes."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


@contextlib.contextmanager
def outside_of_scopes() -> Iterator[None]:
    """Leaves the scopes of strategies in which the caller stands: each part of a training enters the one it needs.

    Within a scope, and outside of its replicas, Keras divides losses by the number of replicas, and its optimizers
    look for the replica that they are in.
    """
    graph = tf.compat.v1.get_default_graph()
    before = graph._distribution_strategy_stack, graph._variable_creator_stack
    if before[0]:
        graph._distribution_strategy_stack, graph._variable_creator_stack = [], []
    try:
        yield
    finally:
        graph._distribution_strategy_stack, graph._variable_creator_stack = before


def describe(strategy: Strategy) -> dict[str, Any]:
    """The strategy's class, its number of replicas and its devices, for records."""
    return {
        "name": type(strategy).__name__,
        "replicas": strategy.num_replicas_in_sync,
        "devices": [str(device).rsplit("device:", 1)[-1] for device in strategy.extended.worker_devices],
    }


def _check_given(strategy: Strategy, devices: int | None) -> Any:
    one_device = isinstance(strategy, tf.distribute.OneDeviceStrategy)
    if not makes_copies(strategy) and not one_device and strategy is not tf.distribute.get_strategy():
        raise ConfigError(
            f"{type(strategy).__name__} is not supported: give a OneDeviceStrategy, a MirroredStrategy, "
            "a MultiWorkerMirroredStrategy or a TPUStrategy"
        )
    if devices not in (None, strategy.num_replicas_in_sync):
        raise ConfigError(
            f"devices={devices}, but the strategy given has {strategy.num_replicas_in_sync}: leave one out"
        )
    return strategy


def _mirrored(kind: str, devices: int | None) -> Any:
    if kind == "CPU" and devices is not None and devices > 1:
        make_cpu_devices(devices)
    found = [device.name for device in tf.config.list_logical_devices(kind)]
    if devices is not None and devices > len(found):
        raise ConfigError(f"devices={devices}, but there are {len(found)} {kind} device(s): ask for fewer")
    return _mirrored_on(tuple(found[:devices]), kind)


@functools.cache
def _mirrored_on(devices: tuple[str, ...], kind: str) -> Any:
    """Returns the one strategy of these devices: traces under it serve the next call that asks for them."""
    # Collectives between logical CPU devices abort when a process uses two group sizes; this way they do not.
    cross_device_ops = tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=cross_device_ops)


def _tpu() -> Any:  # pragma: no cover - needs a TPU
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=os.environ.get("TPU_NAME", ""))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError, OSError) as error:
        raise ConfigError(f"no TPU was found ({str(error).splitlines()[0][:150]}): set TPU_NAME") from error
    return tf.distribute.TPUStrategy(resolver)


def make_cpu_devices(replicas: int) -> None:
    """Makes logical CPU devices if TensorFlow has not started and there are not enough; else there must be enough.

    If there are GPUs nothing is made.

    Raises:
        ConfigError: TensorFlow has started with fewer.
    """
    if tf.config.list_physical_devices("GPU"):
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or []) >= replicas:
        return
    try:
        configure_replicas(replicas)
    except ConfigError:
        if len(tf.config.list_logical_devices("CPU")) < replicas:
            raise
